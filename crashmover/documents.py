# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Documents: the JSON that strangers sent, in no more memory than there is for it.

A part streams, whatever its size.  Only what has to be looked into is read as JSON, and takes up
to forty times the room of its bytes: so what takes too much is refused, and of the others large
ones are looked into one after the other.
"""

import datetime as dt
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, BinaryIO, cast

from crashmover.crash import Kind, Part
from crashmover.errors import CorruptCrash

MOST = 96 << 20
"""Bytes of memory for one document, that is 8 MB or more of a usual one."""

LONGEST = 16 << 20
"""Bytes of a document, whatever is in it."""

SMALL = 256 << 10
"""Bytes of a document that waits for no other, and may be kept in memory."""

# Bytes that these take at most, beside the text: an object, its key, a list, a further item, and
# half a string.
_COSTS = {"{": 136, ":": 72, "[": 72, ",": 48, '"': 32}


class LargeDocument(CorruptCrash):
    """It would take too much memory to be looked into."""


def text_of(part: Part) -> str:
    """Return the text of a document, to be read as JSON.

    :raises LargeDocument: that would take more memory than there is for it
    :raises UnicodeDecodeError: it is no text
    """
    data = _bytes_of(part)
    if not data.isascii() and 5 * len(data) > MOST:  # each character may take four bytes
        raise _large(part)
    text = data.decode(json.detect_encoding(data), "surrogatepass")
    if len(data) > SMALL and _memory_for(text) > MOST:
        raise _large(part)
    return text


def _bytes_of(part: Part) -> bytes:
    if part.size is not None and part.size <= SMALL:
        return part.read()
    data = bytearray()
    for chunk in part.chunks():
        data += chunk
        if len(data) > LONGEST:
            raise _large(part)
    return bytes(data)


def _large(part: Part) -> LargeDocument:
    return LargeDocument(f"{part.label} is too large to be read as JSON")


def _memory_for(text: str) -> int:
    """Return what reading it takes at most, and writing it again."""
    size = sys.getsizeof(text)
    strings = 4 * len(text) if "\\u" in text else size
    written = 0 if text.isascii() else 6 * len(text)
    return size + strings + written + sum(text.count(c) * cost for c, cost in _COSTS.items())


def json_object(part: Part) -> dict[str, Any]:
    """Return what a raw or processed crash says.

    :raises CorruptCrash: it is not a JSON object, or `LargeDocument`
    """
    try:
        value = json.loads(text_of(part))
    except (ValueError, RecursionError) as error:
        raise CorruptCrash(f"{part.label} is not JSON") from error
    if not isinstance(value, dict):
        raise CorruptCrash(f"{part.label} is not a JSON object")
    return value


def json_part(kind: Kind, value: Mapping[str, Any]) -> Part:
    """Return the part that holds `value`; dates and times become ISO 8601 text.

    :raises TypeError: `value` is no mapping, or holds what JSON cannot
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"a {kind} is a mapping, not {type(value).__name__}")
    return Part.of_bytes(kind, json.dumps(value, default=_as_json).encode())


def _as_json(value: object) -> str | dict[Any, Any]:
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Mapping):  # such as the DotDict of Socorro's callers, which is no dict
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


class _Turn:
    """A lock for all threads, and for the processes that are forked once it is shared.

    The system lets go of it when a process is killed.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._shared: Callable[[bool], None] | None = None

    def share(self) -> None:
        self._shared = self._shared or _shared_lock()

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._shared:
            self._shared(True)

    def __exit__(self, *_exc: object) -> None:
        if self._shared:
            self._shared(False)
        self._lock.release()


def _shared_lock() -> Callable[[bool], None]:
    """Return what takes (True) and releases (False) a lock that forked processes share."""
    import fcntl  # only systems that fork have it

    fd = os.memfd_create("crashmover")
    return lambda is_taken: fcntl.lockf(fd, fcntl.LOCK_EX if is_taken else fcntl.LOCK_UN)


_turn = _Turn()

share_turns = _turn.share
"""Let processes that are forked from now on take turns with this one and each other."""


def in_turn(part: Part) -> AbstractContextManager[None]:
    """Wait until no other thread or process has a large document in memory; hold this until
    yours is gone."""
    is_small = part.size is not None and part.size <= SMALL
    return nullcontext() if is_small else _turn


def kept(data: bytes) -> BinaryIO:
    """Return a file that holds these bytes; on disk, where they are many."""
    if len(data) <= SMALL:
        return io.BytesIO(data)
    import tempfile  # only where it is needed: most are small

    file = tempfile.TemporaryFile()
    file.write(data)
    file.seek(0)
    return cast(BinaryIO, file)
