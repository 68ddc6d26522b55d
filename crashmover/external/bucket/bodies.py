# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The bodies of objects: as they come, held against what was announced, and as they go."""

import base64
import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from crashmover.crash import Part
from crashmover.errors import CorruptCrash, StorageUnavailable
from crashmover.external.bucket.client import SHA256, StoredObject, subject

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


PART_SIZE = 8 << 20
"""Bytes: what is larger goes up in parts of this size, and is never in memory as a whole."""


class Check:
    """Holds the bytes that come against what was announced.

    :param uri: what messages call the store
    """

    def __init__(self, stored: StoredObject, uri: str) -> None:
        self._stored = stored
        self._uri = uri
        self._name, self._hash, self._expected = _checksum(stored)
        self._count = 0

    def update(self, data: bytes) -> None:
        self._count += len(data)
        if self._hash:
            self._hash.update(data)

    def finish(self) -> None:
        """Raise `StorageUnavailable` if bytes are missing, `CorruptCrash` if they are others."""
        key, size = self._stored.key, self._stored.size
        if self._count != size:
            reason = f"the answer ended after {self._count} bytes of {size}"
            raise StorageUnavailable(reason, crash_id=subject(key), uri=self._uri)
        if self._hash and self._hash.digest() != self._expected:
            reason = f"its bytes are not those that were saved: the {self._name} differs"
            raise CorruptCrash(reason, crash_id=subject(key), uri=self._uri)


def _checksum(stored: StoredObject) -> tuple[str, Any, bytes]:
    """Return the name of the best checksum that is known, what computes it, and its value."""
    if sha256 := stored.metadata.get(SHA256):
        return "SHA-256", hashlib.sha256(), _decoded(sha256, bytes.fromhex)
    if stored.crc32c:
        import google_crc32c

        return "CRC-32C", google_crc32c.Checksum(), _decoded(stored.crc32c, base64.b64decode)
    return "", None, b""


def crc32c_text(crc32c: int) -> str:
    """Return a CRC-32C as `StoredObject.crc32c` has it: the base64 of its bytes."""
    return base64.b64encode(crc32c.to_bytes(4)).decode()


def _decoded(text: str, decode: Callable[[str], bytes]) -> bytes:
    """Return the bytes of a checksum; none, which no bytes have, if the text is damaged."""
    with suppress(ValueError):
        return decode(text)
    return b""


class Body(io.RawIOBase):
    """A large object as it comes.

    Where a request ends too early, as it does when it has taken too long, another goes on from
    there: as long as each of them brings something.

    :param chunks: of the object, from its beginning
    :param resume: asks for the chunks of the same object from a byte on
    """

    def __init__(
        self, chunks: Iterator[bytes], check: Check, resume: Callable[[int], Iterator[bytes]]
    ) -> None:
        self._check: Check | None = check
        self._resume = resume
        self._chunks = chunks
        self._chunk = memoryview(b"")
        self._count = self._asked_from = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        if not self._chunk:
            self._chunk = memoryview(self._next())
        count = min(len(view), len(self._chunk))
        view[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        return count

    def _next(self) -> bytes:
        try:
            data = next(self._chunks, b"")
        except StorageUnavailable:
            if self._count == self._asked_from:
                raise
            self._asked_from = self._count
            self._chunks = self._resume(self._count)
            data = next(self._chunks, b"")
        self._count += len(data)
        if data and self._check:
            self._check.update(data)
        elif self._check:
            self._check.finish()
            self._check = None
        return data


class Upload:
    """A part on its way up, chunk by chunk.

    :param sha256: of its bytes, where that was said in advance
    """

    def __init__(self, part: Part, *, sha256: str | None) -> None:
        self.size = part.size
        self._label = part.label
        self._sha256 = sha256
        self._ahead: deque[bytes] = deque()
        self._chunks = part.chunks()

    def read_ahead(self, count: int) -> bool:
        """Read so many bytes, or a few more; return whether these are all."""
        missing = count - self.count_ahead
        for chunk in self._chunks:
            self._ahead.append(chunk)
            missing -= len(chunk)
            if missing < 0:
                return False
        return True

    @property
    def count_ahead(self) -> int:
        """How many bytes were read ahead."""
        return sum(map(len, self._ahead))

    def __iter__(self) -> Iterator[bytes]:
        digest = hashlib.sha256() if self._sha256 else None
        while chunk := self._next():
            if digest:
                digest.update(chunk)
            yield chunk
        if digest and digest.hexdigest() != self._sha256:
            raise CorruptCrash(f"{self._label} changed while it was read")

    def _next(self) -> bytes:
        return self._ahead.popleft() if self._ahead else next(self._chunks, b"")


def joined(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the bytes of all chunks in pieces of one size, but for the last one."""
    piece: list[bytes | memoryview] = []
    missing = size
    for chunk in chunks:
        rest = memoryview(chunk)
        while len(rest) >= missing:
            yield b"".join([*piece, rest[:missing]])
            rest, piece, missing = rest[missing:], [], size
        piece.append(rest)
        missing -= len(rest)
    if missing < size:
        yield b"".join(piece)
