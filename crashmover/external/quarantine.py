# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Quarantine: a file for what a queue handed out and nobody can read."""

import base64
import datetime as dt
import errno
import fcntl
import json
import os
import stat
from pathlib import Path

from crashmover.directories import NO_HOME, state_directory
from crashmover.errors import QueueError


class Quarantine:
    """A file of JSON lines that many processes may add to.

    :param path: of the file; None: ``quarantine.jsonl`` in the platform's directory for state
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def add(self, uri: str, queue: str, body: bytes) -> Path:
        """Add a message; return the file's path when it is on the disk.

        A line has `time`, `uri`, `queue` and `body`, in base 64.

        :raises QueueError: it could not be written
        """
        path = self._path or _default_path()
        line = json.dumps(
            {
                "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "uri": uri,
                "queue": queue,
                "body": base64.b64encode(body).decode(),
            }
        )
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _append(path, f"{line}\n".encode())
        except OSError as error:
            raise QueueError(f"quarantine {path}: cannot be written: {error.strerror}") from error
        return path


def _default_path() -> Path:
    """Return the path of the default file.

    :raises QueueError: there is no home directory
    """
    directory = state_directory()
    if directory is None:
        raise QueueError(f"no quarantine file: {NO_HOME}; name one with ?quarantine=")
    return directory / "quarantine.jsonl"


def _append(path: Path, line: bytes) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):  # a FIFO keeps nothing
            raise OSError(errno.EINVAL, "it is no regular file")
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
