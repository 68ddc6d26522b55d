# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PgBouncer before a PostgreSQL server, in transaction mode."""

import os
import pwd
import shutil
import socket
from pathlib import Path

from tests.servers.postgresql import PostgreSQL, unprivileged_user
from tests.servers.process import MissingServer, ServerProcess


class PgBouncer(ServerProcess):
    """A pooler that gives each transaction a connection.

    :param server: the server behind it
    :param pool_size: how many connections it keeps for each user and database
    """

    def __init__(self, server: PostgreSQL, pool_size: int = 10) -> None:
        super().__init__(unprivileged_user())
        self._server = server
        self._pool_size = pool_size
        self._program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if not self._program:
            raise MissingServer("pgbouncer")

    def command(self) -> list[str | Path]:
        assert self._program
        users = self._write("users.txt", f'"{self._server.user}" "{self._server.password}"\n')
        settings = f"""
            [databases]
            * = host={self._server.host} port={self._server.port}
            [pgbouncer]
            listen_addr = {self.host}
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = scram-sha-256
            auth_file = {users}
            pool_mode = transaction
            default_pool_size = {self._pool_size}
        """
        text = "\n".join(line.strip() for line in settings.splitlines())
        return [self._program, self._write("pgbouncer.ini", text)]

    def _write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        if user := unprivileged_user():
            os.chown(path, pwd.getpwnam(user).pw_uid, -1)
        return path

    def ping(self) -> None:
        """Raise `OSError` unless it answers."""
        socket.create_connection((self.host, self.port), 5).close()

    def uri(self, database: str = "postgres", **query: str) -> str:
        """Return the URI of a database through the pooler."""
        there = self._server.uri(database, **query)
        return there.replace(f":{self._server.port}/", f":{self.port}/")
