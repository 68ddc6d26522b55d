# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A server far away: ``latency_proxy.py PORT UPSTREAM_PORT SECONDS``.

All bytes take half of the round trip in each direction, whatever protocol they belong to.  So a
request costs one round trip, and requests that are sent together cost one round trip in all.  A
new connection costs one round trip more, as the handshake of TCP does.

Only the wait is added: the line has no limit of bytes a second, and no slow start.
"""

import asyncio
import resource
import sys
from collections import deque
from collections.abc import Callable
from functools import partial

_GRAIN = 0.0005  # seconds; the loop's timers round up to whole milliseconds, and so to the nearest
_BACKLOG = 4096  # connections that clients may begin at one moment; more would wait for a second
_WINDOW = 1 << 24  # bytes on their way in one direction of a connection, above which it waits
_FILES = 65536  # two for each connection


class Line:
    """What is on its way, of all connections: all of it takes equally long, so what was sent
    first arrives first.

    :param delay: seconds that anything takes
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self._loop = asyncio.get_running_loop()
        self._sent: deque[tuple[float, Callable[[], None]]] = deque()

    def send(self, arrive: Callable[[], None]) -> None:
        """Call a function when what was sent now is there."""
        if not self._sent:
            self._loop.call_later(self.delay - _GRAIN, self._deliver)
        self._sent.append((self._loop.time() + self.delay, arrive))

    def _deliver(self) -> None:
        while self._sent and self._sent[0][0] <= self._loop.time() + _GRAIN:
            self._sent.popleft()[1]()
        if self._sent:
            self._loop.call_at(self._sent[0][0] - _GRAIN, self._deliver)


class End(asyncio.Protocol):
    """One end of a connection: what comes from a client or from the server.

    :param line: that leads to the other end
    """

    other: "End"

    def __init__(self, line: Line) -> None:
        self.line = line
        self.transport: asyncio.Transport | None = None  # None: not connected yet
        self._early: list[Callable[[], None]] = []  # what arrived before it was
        self._on_its_way = 0
        self._is_choked = False
        self._has_heard_all = False

    # What comes from the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        for arrive in self._early:
            arrive()

    def data_received(self, data: bytes) -> None:
        self._on_its_way += len(data)
        self._regulate()
        self.line.send(partial(self.other.take, data))

    def eof_received(self) -> bool:
        self._has_heard_all = True
        self.line.send(self.other.end)
        return True  # answers may still go out

    def connection_lost(self, exc: Exception | None) -> None:
        self.line.send(self.other.close)

    def pause_writing(self) -> None:
        self.other.choke(True)

    def resume_writing(self) -> None:
        self.other.choke(False)

    # What comes from the other end

    def take(self, data: bytes) -> None:
        """Pass on bytes that have arrived."""
        if self.transport is None:
            self._early.append(partial(self.take, data))
            return
        self.transport.write(data)
        self.other.has_arrived(len(data))

    def end(self) -> None:
        """Pass on that no more bytes come."""
        if self.transport is None:
            self._early.append(self.end)
        elif self._has_heard_all:
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.write_eof()

    def close(self) -> None:
        """Close it as the other end was."""
        if self.transport is None:
            self._early.append(self.close)
        else:
            self.transport.close()

    # How much is read from the socket

    def has_arrived(self, count: int) -> None:
        """Take note that bytes from here are at the other end."""
        self._on_its_way -= count
        self._regulate()

    def choke(self, is_choked: bool) -> None:
        """Take note whether the other end takes no more."""
        self._is_choked = is_choked
        self._regulate()

    def _regulate(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if self._is_choked or self._on_its_way > _WINDOW:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


class ClientEnd(End):
    """The end at a client, which takes a round trip until the client may send."""

    def __init__(self, line: Line, upstream_port: int) -> None:
        super().__init__(line)
        self._upstream_port = upstream_port
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other = End(self.line)
        self.other.other = self
        self.choke(True)
        self.line.send(lambda: self.line.send(self._open))

    def _open(self) -> None:
        """Let the client send, and the server hear of it half a round trip later."""
        self.choke(False)
        self.line.send(self._connect)

    def _connect(self) -> None:
        self._connecting = asyncio.create_task(self._connect_upstream())

    async def _connect_upstream(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.other, "127.0.0.1", self._upstream_port)
        except OSError:
            self.close()


async def serve(port: int, upstream_port: int, delay: float) -> None:
    """Relay every connection, for ever.

    :param delay: seconds of a round trip
    """
    line = Line(delay / 2)
    server = await asyncio.get_running_loop().create_server(
        partial(ClientEnd, line, upstream_port), "127.0.0.1", port, backlog=_BACKLOG
    )
    await server.serve_forever()


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, most), most))
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
