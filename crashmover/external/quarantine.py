# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Quarantine: a file for what a queue has handed out and no consumer can use."""

import base64
import datetime as dt
import errno
import fcntl
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from crashmover.directories import NO_HOME, state_directory
from crashmover.errors import QueueError

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Quarantine:
    """A file of JSON lines that many processes may add to.

    :param path: of the file; None: ``quarantine.jsonl`` in the platform's directory for state
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def add(
        self, uri: str, queue: str, body: bytes, about: Mapping[str, object] | None = None
    ) -> Path:
        """Add a message; return the file's path when it is on the disk.

        A line has `time`, `uri`, `queue` and `body`, in base 64.

        :param about: what else the line says of the message; must be fit for JSON
        :raises QueueError: it could not be written
        """
        path = self._path or _default_path()
        line = json.dumps(
            {
                "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "uri": uri,
                "queue": queue,
                "body": base64.b64encode(body).decode(),
                **(about or {}),
            }
        )
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _append(path, f"{line}\n".encode())
        except OSError as error:
            raise QueueError(f"quarantine {path}: cannot be written: {error.strerror}") from error
        return path

    def diagnose(self) -> list[str]:
        """Return why a message could not be added, as a warning; nothing is written or made."""
        path = self._path or _default_path()
        try:
            reason = _obstacle(path)
        except OSError as error:
            reason = error.strerror or str(error)
        if not reason:
            return []
        return [f"its quarantine {path} cannot be written: {reason}; ?quarantine= names another"]


def _default_path() -> Path:
    """Return the path of the default file.

    :raises QueueError: there is no home directory
    """
    directory = state_directory()
    if directory is None:
        raise QueueError(f"no quarantine file: {NO_HOME}; name one with ?quarantine=")
    return directory / "quarantine.jsonl"


def _obstacle(path: Path) -> str | None:
    """Return what keeps us from adding a line, if anything.

    :raises OSError: the file is there and cannot be opened
    """
    try:
        file = os.open(path, _FLAGS)
    except FileNotFoundError:
        return _obstacle_to_making(path)
    try:
        return _obstacle_in(file)
    finally:
        os.close(file)


def _obstacle_in(file: int) -> str | None:
    """Return why no line may be added to an open file.

    A FIFO keeps nothing.  A file of another kind, such as the queue's own database, would be
    damaged, and its owner would write over the line.
    """
    if not stat.S_ISREG(os.fstat(file).st_mode):
        return "it is not a regular file"
    if os.pread(file, 1, 0) not in (b"", b"{"):
        return "it holds something else than lines of JSON"
    return None


def _obstacle_to_making(path: Path) -> str | None:
    above = path.parent
    while not os.path.lexists(above) and above != above.parent:
        above = above.parent
    if not above.is_dir():
        return f"{above} is not a directory"
    if os.statvfs(above).f_flag & os.ST_RDONLY:
        return os.strerror(errno.EROFS)
    can = os.access in os.supports_effective_ids
    if not os.access(above, os.W_OK | os.X_OK, effective_ids=can):
        return os.strerror(errno.EACCES)
    return None


def _append(path: Path, line: bytes) -> None:
    file = os.open(path, _FLAGS | os.O_CREAT, 0o600)
    try:
        if reason := _obstacle_in(file):
            raise OSError(errno.EINVAL, reason)
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file).st_size
        try:
            while line:
                line = line[os.write(file, line) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)  # no half line before the next one
            raise
    finally:
        os.close(file)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
