# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The proxy of the benchmarks: every byte arrives, in its order, and none before its time."""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.benchmarks.servers import LatencyProxy
from tests.servers.process import HOST

ROUND_TRIP = 0.05  # seconds
GRAIN = 0.002  # of the clocks of the proxy, over several steps

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@asynccontextmanager
async def far_away(handler: Handler, round_trip: float = ROUND_TRIP) -> AsyncIterator[Connect]:
    """Start a server and a proxy before it; yield what connects to the proxy."""
    server = await asyncio.start_server(handler, HOST, 0, backlog=1000)
    proxy = LatencyProxy(server.sockets[0].getsockname()[1], round_trip)
    await asyncio.to_thread(proxy.__enter__)
    try:
        yield lambda: asyncio.open_connection(HOST, proxy.port)
    finally:
        proxy.__exit__()
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, until there is no more."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def exchange(connect: Connect, data: bytes, times: int) -> float:
    """Send bytes and wait for the same, again and again; return how many seconds that took."""
    begun = time.perf_counter()
    reader, writer = await connect()
    for _ in range(times):
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
    took = time.perf_counter() - begun
    writer.write_eof()
    assert await reader.read() == b""  # so the server is done, too
    writer.close()
    return took


def test_each_request_waits_for_a_round_trip_and_so_does_the_connection() -> None:
    async def run() -> float:
        async with far_away(echo) as connect:
            return await exchange(connect, b"GET", 4)

    assert asyncio.run(run()) >= 5 * ROUND_TRIP - GRAIN


def test_requests_that_are_sent_together_do_not_wait_for_each_other() -> None:
    async def run() -> float:
        async with far_away(echo, 0.2) as connect:
            begun = time.perf_counter()
            reader, writer = await connect()
            for n in range(100):
                writer.write(f"{n:04}".encode())
                await writer.drain()
            found = await reader.readexactly(400)
            assert found == b"".join(f"{n:04}".encode() for n in range(100))
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            return time.perf_counter() - begun

    assert 0.6 - GRAIN <= asyncio.run(run()) < 10  # one after the other, they would take 20


def test_many_connections_at_once_have_all_their_bytes() -> None:
    rng = random.Random(1)
    bodies = [rng.randbytes(rng.choice((1, 1000, 65_000))) for _ in range(400)]

    async def run() -> list[float]:
        async with far_away(echo) as connect:
            return await asyncio.gather(*(exchange(connect, body, 3) for body in bodies))

    assert min(asyncio.run(run())) >= 4 * ROUND_TRIP - GRAIN


def test_more_than_may_be_on_its_way_arrives_whole_and_a_slow_reader_holds_it_up() -> None:
    size = 40 << 20

    async def read_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest = hashlib.sha256()
        await asyncio.sleep(0.3)
        while data := await reader.read(1 << 20):
            digest.update(data)
        writer.write(digest.digest())  # after the client has sent all
        writer.close()

    async def run() -> bytes:
        async with far_away(read_slowly) as connect:
            reader, writer = await connect()
            for _ in range(size >> 20):
                writer.write(bytes(1 << 20))
                await writer.drain()
            writer.write_eof()
            found = await reader.read()
            writer.close()
            return found

    assert asyncio.run(run()) == hashlib.sha256(bytes(size)).digest()


def test_what_a_server_says_first_comes_when_the_handshake_is_over() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    async def run() -> float:
        async with far_away(greet) as connect:
            begun = time.perf_counter()
            reader, writer = await connect()
            assert await reader.read() == b"hello"
            writer.close()
            return time.perf_counter() - begun

    assert asyncio.run(run()) >= 2 * ROUND_TRIP - GRAIN


def test_a_server_learns_that_a_client_is_gone() -> None:
    async def run() -> bytes:
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if data := await reader.read():  # the first client only looked whether there is one
                await heard.put(data)
            writer.close()

        async with far_away(listen) as connect:
            _, writer = await connect()
            writer.write(b"last words")
            writer.close()
            return await asyncio.wait_for(heard.get(), 30)

    assert asyncio.run(run()) == b"last words"


@pytest.fixture
def before_nothing() -> Iterator[LatencyProxy]:
    """A proxy before a port where no server is."""
    with LatencyProxy(1, ROUND_TRIP) as proxy:
        yield proxy


def test_a_client_learns_that_there_is_no_server(before_nothing: LatencyProxy) -> None:
    async def run() -> bytes:
        reader, writer = await asyncio.open_connection(HOST, before_nothing.port)
        found = await reader.read()
        writer.close()
        return found

    assert asyncio.run(run()) == b""
