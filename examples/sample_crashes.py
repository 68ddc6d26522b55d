# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Invent crashes like those of Firefox on Windows, and save them into a store.

::

    python examples/sample_crashes.py ./crashes --crashes 20 --days 3 --seed 7

The crash ids go to stdout, one a line.  The same seed and last day give the same
crashes, byte for byte.  The minidumps are well formed, and the annotations and the
processed crash agree with them.  No person, machine or site in them is real.
"""

import argparse
import datetime as dt
import gzip
import hashlib
import itertools
import json
import random
import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from crashmover import crashid, open_storage
from crashmover.errors import CrashMoverError

JSONObject = dict[str, object]
MAIN, BROWSER = "upload_file_minidump", "upload_file_minidump_browser"

# -- Minidumps: the structures of Microsoft's minidumpapiset.h -----------------------------


class Fault(NamedTuple):
    reason: str  # as processors name it
    code: int
    access: int  # an access violation's 0 (read) or 1 (write)
    instruction: bytes
    addresses: Sequence[int] = ()  # what it touched; none: the fault is the instruction's own


NEAR_NULL = range(8, 0x200, 8)
FAULTS = (
    Fault("EXCEPTION_ACCESS_VIOLATION_READ", 0xC0000005, 0, b"\x48\x8b\x01", NEAR_NULL),
    Fault("EXCEPTION_ACCESS_VIOLATION_WRITE", 0xC0000005, 1, b"\x48\x89\x01", NEAR_NULL),
    Fault("EXCEPTION_BREAKPOINT", 0x80000003, 0, b"\xcc"),
)
MOZ_CRASH = FAULTS[2]

# The program, the library that crashes, the rest.
MODULE_NAMES = ("firefox.exe", "xul.dll", "mozglue.dll", "nss3.dll", "ntdll.dll", "kernel32.dll")
FIRST_MODULE, FIRST_STACK, STACK_SPACING, FRAME_SIZE = 0x7FF8_1200_0000, 0x9F_D9C0_0000, 2**21, 256

THREADS, MODULES, MEMORY, EXCEPTION, SYSTEM_INFO, MISC_INFO = 3, 4, 5, 6, 7, 15  # stream types
FRONT = 32 + 6 * 12  # the header, and a directory of as many streams
Location = tuple[int, int]  # size and RVA: a MINIDUMP_LOCATION_DESCRIPTOR


class Minidump(NamedTuple):
    body: bytes
    fault: Fault
    address: int
    threads: int
    when: int  # Unix time


class Module(NamedTuple):
    name: str
    base: int
    size: int


class Layout:
    """A minidump that grows: put() appends a blob and says where it landed."""

    def __init__(self) -> None:
        self.body = bytearray(FRONT)
        self.memory: list[bytes] = []

    def put(self, blob: bytes) -> Location:
        self.body += bytes(-len(self.body) % 16)  # the alignment of a CONTEXT: enough for all
        self.body += blob
        return len(blob), len(self.body) - len(blob)

    def put_string(self, text: str) -> int:
        """A MINIDUMP_STRING; structures refer to one by its RVA alone."""
        encoded = text.encode("utf-16-le")
        return self.put(struct.pack("<I", len(encoded)) + encoded + b"\0\0")[1]

    def put_memory(self, start: int, blob: bytes) -> bytes:
        """Return the MINIDUMP_MEMORY_DESCRIPTOR, and keep it for the list of them all."""
        self.memory.append(struct.pack("<Q2I", start, *self.put(blob)))
        return self.memory[-1]

    def finish(self, streams: Mapping[int, bytes], when: int) -> bytes:
        directory = [struct.pack("<3I", kind, *self.put(body)) for kind, body in streams.items()]
        header = struct.pack("<4s5IQ", b"MDMP", 0xA793, len(streams), 32, 0, when, 0)
        self.body[:FRONT] = header + b"".join(directory)
        return bytes(self.body)


def minidump(rng: random.Random, when: int) -> Minidump:
    """Return the minidump of an x86-64 process whose first thread crashed at `when`."""
    threads, pid = rng.randint(5, 14), 4 * rng.randint(500, 9999)
    modules = load_modules(rng)
    fault = rng.choice(FAULTS)
    rip = code_address(rng, modules[1:2])
    address = rng.choice(fault.addresses or [rip])
    stops = [(rip, address)]
    stops += [(code_address(rng, modules), rng.getrandbits(32)) for _ in range(threads - 1)]
    starts = [FIRST_STACK + n * STACK_SPACING for n in range(threads)]

    layout = Layout()
    stacks = [layout.put_memory(start, stack(rng, start, modules)) for start in starts]
    contexts = [layout.put(context(rng, starts[n], *stops[n])) for n in range(threads)]
    layout.put_memory(rip - 128, (b"\x90" * 128 + fault.instruction).ljust(256, b"\x90"))
    ids = range(pid, pid + 4 * threads, 4)
    rows = [struct.pack("<I20x16s2I", ids[n], stacks[n], *contexts[n]) for n in range(threads)]
    record = exception(fault, rip, address)
    streams = {
        THREADS: counted(rows),
        MODULES: counted([module_row(layout, module, when) for module in modules]),
        MEMORY: counted(layout.memory),
        EXCEPTION: struct.pack("<I4x152s2I", ids[0], record, *contexts[0]),
        SYSTEM_INFO: system_info(layout.put_string("")),
        MISC_INFO: struct.pack("<6I", 24, 3, pid, when - rng.randint(1, 9999), 40, 7),
    }
    return Minidump(layout.finish(streams, when), fault, address, threads, when)


def counted(rows: Sequence[bytes]) -> bytes:
    """The form of every list in a minidump."""
    return struct.pack("<I", len(rows)) + b"".join(rows)


def load_modules(rng: random.Random) -> list[Module]:
    """Place modules one above the other."""
    sizes = [0x1000 * rng.randint(40, 4000) for _ in MODULE_NAMES]
    steps = ((size & ~0xFFFF) + 0x20000 for size in sizes)
    bases = itertools.accumulate(steps, initial=FIRST_MODULE)
    return [Module(*module) for module in zip(MODULE_NAMES, bases, sizes, strict=False)]


def code_address(rng: random.Random, modules: Sequence[Module]) -> int:
    module = rng.choice(modules)
    return module.base + rng.randrange(0x1000, module.size - 0x1000)


def stack(rng: random.Random, start: int, modules: Sequence[Module]) -> bytes:
    """Frames chained by their saved frame pointers, for a stack walker to follow."""
    depth = rng.randint(12, 36)
    chain = [(start + FRAME_SIZE * n - 16, code_address(rng, modules)) for n in range(2, depth + 1)]
    return b"".join(
        rng.randbytes(96) + bytes(FRAME_SIZE - 112) + struct.pack("<2Q", *link)
        for link in [*chain, (0, 0)]
    )


def context(rng: random.Random, rsp: int, rip: int, rcx: int) -> bytes:
    """An x86-64 CONTEXT: 1232 bytes, the floating point registers left blank."""
    segments = (0x33, 0x2B, 0x2B, 0x53, 0x2B, 0x2B)  # cs, ds, es, fs, gs, ss
    rax, rdx, rbx, *others = (rng.getrandbits(32) for _ in range(13))
    registers = (rax, rcx, rdx, rbx, rsp, rsp + FRAME_SIZE - 16, *others, rip)
    return struct.pack("<48x2I6HI48x17Q976x", 0x10001F, 0x1F80, *segments, 0x10246, *registers)


def module_row(layout: Layout, module: Module, when: int) -> bytes:
    name, symbols = layout.put_string(module.name), layout.put(symbols_id(module.name))
    where = (module.base, module.size, 0, build_time(when), name)
    return struct.pack("<Q4I52x2I24x", *where, *symbols)


def build_time(when: int) -> int:
    """A build a week; at a crash it is one to two weeks old."""
    return (when // 604_800 - 1) * 604_800


def symbols_id(module: str) -> bytes:
    """A CodeView record; the same in all dumps, as it is of one build."""
    digest = hashlib.sha256(module.encode()).digest()
    pdb = module.rpartition(".")[0] + ".pdb"
    return struct.pack("<4s16sI", b"RSDS", digest, 1) + pdb.encode() + b"\0"


def exception(fault: Fault, rip: int, address: int) -> bytes:
    """A MINIDUMP_EXCEPTION."""
    touched = (2, fault.access, address) if fault.addresses else (0, 0, 0)
    return struct.pack("<2I8xQI4x2Q104x", fault.code, 0, rip, *touched)


def system_info(description: int) -> bytes:
    cpu = (9, 6, 0x8E0A, 8, 1)  # AMD64, its family, model and stepping; 8 of them; a workstation
    windows = (10, 0, 22621, 2, description)
    return struct.pack("<3H2B5I4x12s12x", *cpu, *windows, b"GenuineIntel")


# -- Raw and processed crashes -------------------------------------------------------------

RELEASES = (("release", "145.0.1"), ("beta", "146.0"), ("nightly", "147.0a1"), ("esr", "140.5.0"))
MOZ_CRASH_REASONS = ("MOZ_RELEASE_ASSERT(mRefCnt > 0)", "IPC: “Größe” ≠ 火狐", "MOZ_CRASH(OOM)")
PRIVATE: Sequence[dict[str, str]] = (
    {},
    {"URL": "https://www.example.com/login?session=8f2c"},
    {"Email": "renee@example.com", "Comments": "Ça plante à chaque démarrage… 😡"},
)
TOP_FUNCTIONS = ("mozilla::dom::Element::GetAttr", "js::gc::GCRuntime::sweepPhase")
CALLERS = ("nsThread::ProcessNextEvent", "MessageLoop::Run", "XREMain::XRE_main")


def raw_crash(
    rng: random.Random, crash_id: str, main: Minidump, dumps: Mapping[str, bytes]
) -> JSONObject:
    """Return the annotations that a collector keeps beside `dumps`."""
    received = min(main.when + rng.randint(5, 900), midnight_of(crash_id) + 86_399)
    return {
        **browser(rng, main),
        **machine(rng),
        **rng.choice(PRIVATE),
        "metadata": {
            "collector_notes": [],
            "dump_checksums": {n: hashlib.sha256(body).hexdigest() for n, body in dumps.items()},
            "payload": "multipart",
            "payload_compressed": "1",
        },
        "submitted_timestamp": utc(received + rng.random()).isoformat(),
        "uuid": crash_id,
        "version": 2,
    }


def browser(rng: random.Random, main: Minidump) -> dict[str, str]:
    (channel, version), build = rng.choice(RELEASES), build_time(main.when)
    uptime = rng.randint(1, rng.choice((60, 3_600, 200_000)))
    moz_crash = {"MozCrashReason": rng.choice(MOZ_CRASH_REASONS)}
    return {
        "ProductName": "Firefox",
        "Vendor": "Mozilla",
        "Version": version,
        "ReleaseChannel": channel,
        "BuildID": f"{utc(build):%Y%m%d}093412",
        "ProcessType": rng.choice(("main", "content", "gpu", "utility")),
        "CrashTime": str(main.when),
        "InstallTime": str(build + rng.randint(50_000, 300_000)),
        "UptimeTS": f"{uptime}.{rng.randrange(10**6):06}",
        "StartupCrash": "1" if uptime < 20 else "0",
        **(moz_crash if main.fault is MOZ_CRASH else {}),
    }


def machine(rng: random.Random) -> dict[str, str]:
    memory, used = rng.choice((4, 8, 16, 32)) << 30, rng.randint(20, 97)
    environment = {
        "settings": {"locale": rng.choice(("de", "en-US", "zh-CN"))},
        "system": {"cpu": {"count": 8, "vendor": "GenuineIntel"}, "memoryMB": memory >> 20},
    }
    return {
        "AdapterVendorID": rng.choice(("0x8086", "0x10de", "0x1002")),
        "TotalPhysicalMemory": str(memory),
        "AvailablePhysicalMemory": str(memory * (100 - used) // 100),
        "SystemMemoryUsePercentage": str(used),
        "TelemetryEnvironment": json.dumps(environment),
    }


def processed_crash(
    rng: random.Random, raw: JSONObject, minidumps: Mapping[str, Minidump]
) -> JSONObject:
    """Return what a processor makes of a crash."""
    main, top = minidumps[MAIN], rng.choice(TOP_FUNCTIONS)
    received = dt.datetime.fromisoformat(str(raw["submitted_timestamp"]))
    reports = {name: {"json_dump": json_dump(dump, top)} for name, dump in minidumps.items()}
    return {
        "uuid": raw["uuid"],
        "signature": top,
        "product": raw["ProductName"],
        "version": raw["Version"],
        "build": raw["BuildID"],
        "process_type": raw["ProcessType"],
        "reason": main.fault.reason,
        "address": f"0x{main.address:016x}",
        "os_name": "Windows NT",
        "date_processed": (received + dt.timedelta(seconds=rng.randint(2, 600))).isoformat(),
        "uptime": int(float(str(raw["UptimeTS"]))),
        **reports.pop(MAIN),
        **reports,
        # Protected, as is json_dump.sensitive.
        "url": raw.get("URL"),
        "email": raw.get("Email"),
        "user_id": f"{rng.getrandbits(64):016x}",
        "exploitability": rng.choice(("none", "low", "medium", "high")),
        "memory_info": {"total": raw["TotalPhysicalMemory"]},
    }


def json_dump(dump: Minidump, top: str) -> JSONObject:
    """What a stack walker prints, and what in it is not for everybody."""
    idle = [{"module": "xul.dll", "function": name, "trust": "cfi"} for name in CALLERS]
    crashed = [{"module": "xul.dll", "function": top, "trust": "context"}, *idle]
    address = f"0x{dump.address:016x}"
    return {
        "crash_info": {"type": dump.fault.reason, "address": address, "crashing_thread": 0},
        "threads": [{"frames": idle if n else crashed} for n in range(dump.threads)],
        "sensitive": {"exploitability": "low"},
    }


# -- Whole crashes -------------------------------------------------------------------------


def sample(
    rng: random.Random, crash_id: str
) -> tuple[JSONObject, dict[str, bytes], JSONObject | None]:
    """Return one crash: its raw crash, its dumps, and its processed crash if it has one."""
    when = midnight_of(crash_id) + rng.randrange(80_000)
    names = [MAIN, BROWSER] if rng.random() < 0.2 else [MAIN]
    minidumps = {name: minidump(rng, when) for name in names}
    dumps = {name: dump.body for name, dump in minidumps.items()}
    if rng.random() < 0.05:
        dumps["memory_report"] = memory_report(rng)
    raw = raw_crash(rng, crash_id, minidumps[MAIN], dumps)
    return raw, dumps, processed_crash(rng, raw, minidumps) if rng.random() < 0.5 else None


def memory_report(rng: random.Random) -> bytes:
    heap = {"process": "Main Process", "path": "heap-allocated", "amount": rng.getrandbits(28)}
    report = {"version": 1, "hasMozMallocUsableSize": True, "reports": [heap]}
    return gzip.compress(json.dumps(report).encode(), mtime=0)  # no time: the same each run


def new_crash_id(rng: random.Random, day: dt.date) -> str:
    """As `crashid.create`, but the same for the same seed."""
    random_part = str(uuid.UUID(int=rng.getrandbits(128), version=4))[:-7]
    return f"{random_part}{rng.choice('0000022221')}{day:%y%m%d}"


def midnight_of(crash_id: str) -> int:
    return int(dt.datetime.combine(crashid.date_of(crash_id), dt.time(), dt.UTC).timestamp())


def utc(when: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(when, dt.UTC)


# -- The command ---------------------------------------------------------------------------


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def arguments() -> argparse.ArgumentParser:
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    parser = argparse.ArgumentParser(
        description="Save invented crashes into a store, and print their ids.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("store", metavar="STORE", help="a URI, a path or a configured name")
    parser.add_argument("--crashes", type=positive, default=20, metavar="N", help="how many")
    parser.add_argument("--days", type=positive, default=3, metavar="N", help="over how many days")
    parser.add_argument(
        "--last-day", type=dt.date.fromisoformat, default=yesterday, metavar="DAY", help="UTC"
    )
    parser.add_argument("--seed", type=int, default=3, metavar="N", help="another gives others")
    return parser


def main() -> None:
    parser = arguments()
    args = parser.parse_args()
    rng = random.Random(args.seed)
    try:
        with open_storage(args.store) as storage:
            for n in range(args.crashes):
                crash_id = new_crash_id(rng, args.last_day - dt.timedelta(days=n % args.days))
                raw, dumps, processed = sample(rng, crash_id)
                if processed:
                    storage.save_raw_and_processed(raw, dumps, processed, crash_id)
                else:
                    storage.save_raw_crash(raw, dumps, crash_id)
                print(crash_id)
    except CrashMoverError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
