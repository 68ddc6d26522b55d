# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A slow network: ``latency_proxy.py PORT UPSTREAM_PORT SECONDS``.

Whatever a client sends arrives that much later; answers come at once.  What is sent in one go
arrives in one go: only the wait is added, however large a body is.
"""

import asyncio
import sys
from contextlib import suppress

_CHUNK = 1 << 16
_CHUNKS = 1024  # that may be under way in one connection


async def serve(port: int, upstream_port: int, delay: float) -> None:
    """Relay every connection, for ever."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_connection("127.0.0.1", upstream_port)
        await asyncio.gather(
            late(reader, upstream[1], delay), at_once(upstream[0], writer), return_exceptions=True
        )

    server = await asyncio.start_server(relay, "127.0.0.1", port)
    await server.serve_forever()


async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes."""
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Pass on what comes, each piece so many seconds after it has come."""
    clock = asyncio.get_running_loop().time
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS)

    async def receive() -> None:
        data = b"-"
        while data:
            with suppress(ConnectionError):
                data = await reader.read(_CHUNK)
            await waiting.put((clock() + delay, data))

    receiving = asyncio.create_task(receive())
    try:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - clock())
            if not data:
                return
            writer.write(data)
            await writer.drain()
    finally:
        receiving.cancel()
        writer.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
