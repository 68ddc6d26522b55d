# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PgBouncer before a PostgreSQL server."""

import os
import pwd
import shutil
import socket
from pathlib import Path

from tests.servers.postgresql import PostgreSQL, unprivileged_user
from tests.servers.process import MissingServer, ServerProcess


class PgBouncer(ServerProcess):
    """A pooler: by default it gives each transaction a connection.

    :param server: the server behind it
    :param pool_size: how many connections it keeps for each user and database
    :param mode: who gets a connection: a ``transaction``, ``session`` or ``statement``
    :param settings: further ones of PgBouncer's
    """

    def __init__(
        self,
        server: PostgreSQL,
        pool_size: int = 10,
        mode: str = "transaction",
        **settings: str | int,
    ) -> None:
        super().__init__(unprivileged_user())
        self._settings = {"pool_mode": mode, "default_pool_size": pool_size, **settings}
        self._server = server
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
        """
        lines = [line.strip() for line in settings.splitlines()]
        lines += [f"{name} = {value}" for name, value in self._settings.items()]
        text = "\n".join(lines) + "\n"
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
