# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A standby of a PostgreSQL server, which follows it."""

import os
import pwd
import shutil
import time
from pathlib import Path

from tests.servers.postgresql import PostgreSQL, unprivileged_user

_TIMEOUT_S = 30.0
_LEVEL = r"-c default_transaction_isolation=read\ committed"


class Standby(PostgreSQL):
    """It begins with the files of its primary, which has to be stopped until `prepare` is done.

    :param primary: the server that it follows
    :param programs: of the same version as the primary's
    """

    def __init__(self, primary: PostgreSQL, programs: Path) -> None:
        super().__init__(programs)
        self._primary = primary
        self.password = primary.password

    def prepare(self) -> None:
        """Copy the primary's files."""
        user = unprivileged_user()
        shutil.copytree(self._primary.directory / "data", self._data, symlinks=True)
        (self._data / "standby.signal").touch()
        primary = self._primary
        where = f"host={primary.host} port={primary.port} user={primary.user}"
        with (self._data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{where} password={primary.password}'\n")
        if user:
            for path in (self._data, *self._data.rglob("*")):
                os.chown(path, pwd.getpwnam(user).pw_uid, -1)

    def wait_until_it_has(self, primary: PostgreSQL) -> None:
        """Wait until it has replayed all that the primary has written by now."""
        with primary.connect() as connection, self.connect(options=_LEVEL) as standby:
            position = connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
            query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            deadline = time.monotonic() + _TIMEOUT_S
            while standby.execute(query, position).fetchone() != (True,):
                assert time.monotonic() < deadline, "the standby does not follow"
                time.sleep(0.05)
