# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Minidumps to test with, put together stream by stream as Microsoft's ``minidumpapiset.h`` has
them."""

import struct
from collections.abc import Mapping, Sequence

WINDOWS, MAC, LINUX, ANDROID = 2, 0x8101, 0x8201, 0x8203
X86, AMD64, ARM64 = 0, 9, 12
TIME = 1_763_536_030  # 2025-11-19 07:07:10 UTC

THREADS, MODULES, EXCEPTION, SYSTEM = 3, 4, 6, 7
_HEADER, _ENTRY = 32, 12


def minidump(
    *,
    system: int = WINDOWS,
    version: tuple[int, int, int] = (10, 0, 22621),
    name: str = "",
    cpu: int = AMD64,
    code: int = 0xC0000005,
    flags: int = 0,
    address: int = 0x7FF8_1234_5678,
    parameters: Sequence[int] = (0, 0x148),
    threads: int = 3,
    modules: Sequence[str] = ("C:\\Users\\zoe\\firefox.exe", "xul.dll"),
    replaced: Mapping[int, bytes | None] | None = None,
) -> bytes:
    """Return a minidump with the streams that are read.

    :param replaced: by their kind, streams with another content, or that are left out
    """
    parts = _Parts(4)
    touched = (*parameters, 0, 0)[:2]
    names = [parts.put_string(text) for text in modules]
    streams: dict[int, bytes | None] = {
        SYSTEM: struct.pack("<H4xBB5I28x", cpu, 8, 1, *version, system, parts.put_string(name)),
        EXCEPTION: struct.pack(
            "<I4x2IQQI4x2Q112x", 7, code, flags, 0, address, len(parameters), *touched
        ),
        THREADS: struct.pack(f"<I{48 * threads}x", threads),
        MODULES: struct.pack("<I", len(names))
        + b"".join(struct.pack("<QIIII84x", 0x1000, 0x2000, 0, 0, where) for where in names),
    }
    streams |= replaced or {}
    return parts.finish({kind: data for kind, data in streams.items() if data is not None})


class _Parts:
    """A minidump that grows.

    :param count: of the streams that there is room for
    """

    def __init__(self, count: int) -> None:
        self._body = bytearray(_HEADER + _ENTRY * count)

    def put(self, data: bytes) -> tuple[int, int]:
        """Add something; return its size and where it is."""
        self._body += data
        return len(data), len(self._body) - len(data)

    def put_string(self, text: str) -> int:
        data = text.encode("utf-16-le", "surrogatepass")
        return self.put(struct.pack("<I", len(data)) + data + b"\0\0")[1] if text else 0

    def finish(self, streams: Mapping[int, bytes]) -> bytes:
        entries = [struct.pack("<3I", kind, *self.put(data)) for kind, data in streams.items()]
        header = struct.pack("<4s5IQ", b"MDMP", 0xA793, len(streams), _HEADER, 0, TIME, 0)
        front = header + b"".join(entries)
        self._body[: len(front)] = front
        return bytes(self._body)


SAMPLES = [
    minidump(),
    minidump(modules=["/a/b"], replaced={SYSTEM: None, EXCEPTION: None}),
    minidump(system=LINUX, name="Linux 6", code=11, flags=1, modules=[], threads=0),
    minidump(system=MAC, name="24B83", code=1, modules=[], replaced={THREADS: None}),
    minidump(replaced={THREADS: b"\xff" * 52, EXCEPTION: None}),
]
"""Minidumps of all kinds, small enough to be varied."""
