# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The bodies of objects: as they come, held against what was announced, and as they go."""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from crashmover.crash import Part
from crashmover.errors import CorruptCrash, StorageUnavailable
from crashmover.external.bucket.calling import call_client
from crashmover.external.s3.connection_context import S3ConnectionContext

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from obstore import GetResult

PART_SIZE = 8 << 20
"""Bytes: what is larger goes up in parts of this size, and is never in memory as a whole."""

_STREAM = 256 << 10


class Check:
    """Whether the bytes that come are those that were announced."""

    def __init__(self, size: int, sha256: str | None) -> None:
        self._size = size
        self._sha256 = sha256
        self._hash = hashlib.sha256()
        self._count = 0

    def update(self, data: bytes) -> None:
        self._count += len(data)
        if self._sha256:
            self._hash.update(data)

    def finish(self, uri: str, crash_id: str) -> None:
        if self._count != self._size:
            reason = f"the answer ended after {self._count} bytes of {self._size}"
            raise StorageUnavailable(reason, crash_id=crash_id, uri=uri)
        if self._sha256 and self._hash.hexdigest() != self._sha256:
            reason = "its bytes are not those that were saved: the SHA-256 differs"
            raise CorruptCrash(reason, crash_id=crash_id, uri=uri)


class Body(io.RawIOBase):
    """A large object as it comes.

    Where a request ends too early, as it does when it has taken too long, another goes on from
    there: as long as each of them brings something.

    :param rest: asks for the bytes of the same object from one on
    """

    def __init__(
        self,
        result: "GetResult",
        check: Check,
        context: S3ConnectionContext,
        crash_id: str,
        rest: Callable[[int], "GetResult"],
    ) -> None:
        self._context = context
        self._crash_id = crash_id
        self._check: Check | None = check
        self._rest = rest
        self._stream = iter(result.stream(min_chunk_size=_STREAM))
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
            data = self._receive()
        except StorageUnavailable:
            if self._count == self._asked_from:
                raise
            self._asked_from = self._count
            self._stream = iter(self._rest(self._count).stream(min_chunk_size=_STREAM))
            data = self._receive()
        self._count += len(data)
        if data and self._check:
            self._check.update(data)
        elif self._check:
            self._check.finish(self._context.uri, self._crash_id)
            self._check = None
        return data

    def _receive(self) -> bytes:
        with self._context.translating(self._crash_id):
            return bytes(call_client(lambda: next(self._stream, b"")))


class Upload:
    """A part on its way up, chunk by chunk.

    What goes wrong with reading it is kept in `error`: it is not the client's to explain.

    :param sha256: of its bytes, where that was said in advance
    """

    def __init__(self, part: Part, *, sha256: str | None) -> None:
        self.size = part.size
        self.error: BaseException | None = None
        self._label = part.label
        self._sha256 = sha256
        self._ahead: deque[bytes] = deque()
        self._chunks = part.chunks()

    def read_ahead(self, count: int) -> bool:
        """Read so many bytes, or a few more; return whether these are all."""
        missing = count - sum(map(len, self._ahead))
        for chunk in self._chunks:
            self._ahead.append(chunk)
            missing -= len(chunk)
            if missing < 0:
                return False
        return True

    def data(self) -> bytes:
        """Return what was read ahead."""
        return b"".join(self._ahead)

    def __iter__(self) -> Iterator[bytes]:
        digest = hashlib.sha256() if self._sha256 else None
        try:
            while chunk := self._next():
                if digest:
                    digest.update(chunk)
                yield chunk
            if digest and digest.hexdigest() != self._sha256:
                raise CorruptCrash(f"{self._label} changed while it was read")
        except BaseException as error:
            self.error = error
            raise

    def _next(self) -> bytes:
        return self._ahead.popleft() if self._ahead else next(self._chunks, b"")
