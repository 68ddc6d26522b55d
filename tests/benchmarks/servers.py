# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The tests' servers, as fast as they are in earnest: S3 and Google Cloud Storage in memory,
PostgreSQL on a disk."""

import os
import sys
import tempfile
from pathlib import Path

from tests.servers.gcs import FakeGCS
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import ServerProcess
from tests.servers.s3 import Rclone, S3Server

_MEMORY = Path("/dev/shm")
_DISK = Path("/var/tmp")  # /tmp may be in memory


class TmpfsRclone(Rclone):
    """``rclone serve s3`` on a directory in memory, where there is one."""

    def __init__(self) -> None:
        super().__init__()
        _move(self, _MEMORY)

    def path_of(self, bucket: str) -> Path:
        """Where the objects of a bucket are, as plain files."""
        return self.directory / "data" / bucket


class TmpfsFakeGCS(FakeGCS):
    """fake-gcs-server on a directory in memory, where there is one.

    Its own backend in memory copies all of an object where only the metadata is asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        _move(self, _MEMORY)

    def command(self) -> list[str | Path]:
        """As the tests have it; what comes last counts."""
        data = self.directory / "data"
        command = [*super().command(), "-backend", "filesystem", "-filesystem-root", data]
        return [*command, "-public-host", self.host]  # without the port, which proxies have not

    def path_of(self, bucket: str) -> Path:
        """Where the objects of a bucket are, as plain files."""
        return self.directory / "data" / bucket


class DurablePostgreSQL(PostgreSQL):
    """A cluster that keeps what it has committed, whatever happens."""

    def __init__(self) -> None:
        super().__init__()
        _move(self, _DISK)

    def command(self) -> list[str | Path]:
        """As the tests have it; what comes last counts."""
        settings = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
        return [*super().command(), *(f"--{name}={value}" for name, value in settings.items())]


class ListingServer(S3Server):
    """Answers listings and questions for single objects as if each bucket held the files of a
    directory, and counts them: with 100,000 keys rclone takes a second for a page.

    It does so as Google Cloud Storage, too.
    """

    def __init__(self, tree: Path) -> None:
        super().__init__()
        self.tree = tree

    def command(self) -> list[str | Path]:
        server = Path(__file__).with_name("listing_server.py")
        return [sys.executable, server, str(self.port), self.tree]


def _move(server: ServerProcess, parent: Path) -> None:
    """Let a server that has not begun keep its data elsewhere."""
    if parent.is_dir():
        owner = server.directory.stat()
        server.directory.rmdir()
        server.directory = Path(tempfile.mkdtemp(prefix="crashmover-bench-", dir=parent))
        os.chown(server.directory, owner.st_uid, owner.st_gid)


class LatencyProxy(ServerProcess):
    """A server, as clients see it from far away.

    :param upstream_port: the server's
    :param delay: seconds of a round trip
    """

    def __init__(self, upstream_port: int, delay: float) -> None:
        super().__init__()
        self._upstream = (str(upstream_port), str(delay))

    def command(self) -> list[str | Path]:
        proxy = Path(__file__).with_name("latency_proxy.py")
        return [sys.executable, proxy, str(self.port), *self._upstream]
