# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Invent crashes like those of Firefox, and save them into a store to try things on::

    python examples/sample_crashes.py ./crashes --crashes 20 --days 3 --seed 1

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
from typing import Literal, NamedTuple

OS = Literal["windows", "linux"]
JSONObject = dict[str, object]
MAIN, BROWSER = "upload_file_minidump", "upload_file_minidump_browser"
NO_DUMPS: Mapping[str, bytes] = {}

# -- What crashes, and how ---------------------------------------------------------------


class Fault(NamedTuple):
    code: int  # the exception code or the signal
    detail: int  # an access violation's 0 (read) or 1 (write), or the signal's si_code
    reason: str  # as processors name it
    instruction: bytes
    addresses: Sequence[int] = ()  # what it touched; none: the fault is the instruction's own


class System(NamedTuple):
    name: str
    platform: int  # MINIDUMP_SYSTEM_INFO.PlatformId
    version: tuple[int, int, int]
    description: str
    code: int  # where modules begin
    stacks: int
    modules: str  # names: the program, the library that crashes, the rest
    faults: Sequence[Fault]


LOAD, STORE, INT3, UD2 = b"\x48\x8b\x01", b"\x48\x89\x01", b"\xcc", b"\x0f\x0b"  # by way of rcx
NEAR_NULL = range(8, 0x200, 8)

WINDOWS = System(
    name="Windows_NT",
    platform=2,
    version=(10, 0, 22621),
    description="",
    code=0x7FF8_1200_0000,
    stacks=0x9F_D9C0_0000,
    modules="firefox.exe xul.dll mozglue.dll nss3.dll ntdll.dll kernel32.dll kernelbase.dll"
    " ucrtbase.dll user32.dll win32u.dll combase.dll dxgi.dll d3d11.dll",
    faults=(
        Fault(0xC0000005, 0, "EXCEPTION_ACCESS_VIOLATION_READ", LOAD, NEAR_NULL),
        Fault(0xC0000005, 1, "EXCEPTION_ACCESS_VIOLATION_WRITE", STORE, NEAR_NULL),
        Fault(0x80000003, 0, "EXCEPTION_BREAKPOINT", INT3),  # a MOZ_CRASH
    ),
)
LINUX = System(
    name="Linux",
    platform=0x8201,
    version=(6, 8, 0),
    description="Linux 6.8.0-45-generic #45-Ubuntu SMP PREEMPT_DYNAMIC x86_64 GNU/Linux",
    code=0x7F2A_4000_0000,
    stacks=0x7FFC_1000_0000,
    modules="firefox libxul.so libmozsandbox.so libnss3.so libc.so.6 libm.so.6 libstdc++.so.6"
    " libgtk-3.so.0 libglib-2.0.so.0 libX11.so.6 libdrm.so.2 ld-linux-x86-64.so.2",
    faults=(
        Fault(11, 1, "SIGSEGV / SEGV_MAPERR", LOAD, NEAR_NULL),
        Fault(11, 1, "SIGSEGV / SEGV_MAPERR", STORE, (0,)),  # a MOZ_CRASH writes to null
        Fault(4, 2, "SIGILL / ILL_ILLOPN", UD2),
    ),
)
SYSTEMS: dict[OS, System] = {"windows": WINDOWS, "linux": LINUX}

# -- Minidumps ---------------------------------------------------------------------------

THREADS, MODULES, MEMORY, EXCEPTION, SYSTEM_INFO, MISC_INFO = 3, 4, 5, 6, 7, 15  # stream types
FRONT = 32 + 6 * 12  # the header, and a directory of as many streams
FRAME_SIZE, STACK_SPACING = 256, 0x200000
Location = tuple[int, int]  # size and RVA: a MINIDUMP_LOCATION_DESCRIPTOR


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


class Module(NamedTuple):
    name: str
    base: int
    size: int


def minidump(
    rng: random.Random, *, os: OS, threads: int, modules: int, when: int = 1_750_000_000
) -> bytes:
    """Return the minidump of an x86-64 process whose first thread crashed at `when`.

    It has one thread and one module at the least.  The structures are those of
    Microsoft's minidumpapiset.h and, for Linux, of Breakpad's minidump_format.h.

    :param when: Unix time
    """
    system, pid = SYSTEMS[os], 4 * rng.randint(500, 9999)
    loaded = load_modules(rng, system, modules)
    fault = rng.choice(system.faults)
    rip = code_address(rng, loaded[:2][-1:])
    address = rng.choice(fault.addresses or [rip])
    stops = [(rip, address)]
    stops += [(code_address(rng, loaded), rng.getrandbits(32)) for _ in range(threads - 1)]
    starts = [system.stacks + n * STACK_SPACING for n in range(threads)]

    layout = Layout()
    stacks = [layout.put_memory(start, stack(rng, start, loaded)) for start in starts]
    contexts = [layout.put(context(rng, starts[n], *stops[n])) for n in range(threads)]
    layout.put_memory(rip - 128, (b"\x90" * 128 + fault.instruction).ljust(256, b"\x90"))
    ids = range(pid, pid + 4 * threads, 4)
    rows = [struct.pack("<I20x16s2I", ids[n], stacks[n], *contexts[n]) for n in range(threads)]
    record = exception(system, fault, rip, address)
    streams = {
        THREADS: counted(rows),
        MODULES: counted([module_row(layout, system, module, when) for module in loaded]),
        MEMORY: counted(layout.memory),
        EXCEPTION: struct.pack("<I4x152s2I", ids[0], record, *contexts[0]),
        SYSTEM_INFO: system_info(system, layout.put_string(system.description)),
        MISC_INFO: struct.pack("<6I", 24, 3, pid, when - rng.randint(1, 9999), 40, 7),
    }
    return layout.finish(streams, when)


def counted(rows: Sequence[bytes]) -> bytes:
    """The form of every list in a minidump."""
    return struct.pack("<I", len(rows)) + b"".join(rows)


def load_modules(rng: random.Random, system: System, count: int) -> list[Module]:
    """Place modules one above the other; the names start again when they run out."""
    modules, base = [], system.code
    for name in itertools.islice(itertools.cycle(system.modules.split()), count):
        modules.append(Module(name, base, 0x1000 * rng.randint(40, 4000)))
        base += (modules[-1].size & ~0xFFFF) + 0x20000
    return modules


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


def module_row(layout: Layout, system: System, module: Module, when: int) -> bytes:
    name, symbols = layout.put_string(module.name), layout.put(symbols_id(system, module.name))
    where = (module.base, module.size, 0, build_time(when), name)
    return struct.pack("<Q4I52x2I24x", *where, *symbols)


def build_time(when: int) -> int:
    """A build a week; at a crash it is one to two weeks old."""
    return (when // 604_800 - 1) * 604_800


def symbols_id(system: System, module: str) -> bytes:
    """A CodeView record, or an ELF build id; the same in all dumps, as it is of one build."""
    digest = hashlib.sha256(module.encode()).digest()
    if system is LINUX:
        return struct.pack("<I20s", 0x4270454C, digest)  # 'BpEL'
    pdb = module.rpartition(".")[0] + ".pdb"
    return struct.pack("<4s16sI", b"RSDS", digest, 1) + pdb.encode() + b"\0"


def exception(system: System, fault: Fault, rip: int, address: int) -> bytes:
    """A MINIDUMP_EXCEPTION: where it tells what was touched depends on the system."""
    if system is LINUX:
        return struct.pack("<2I8xQ128x", fault.code, fault.detail, address)
    touched = (2, fault.detail, address) if fault.addresses else (0, 0, 0)
    return struct.pack("<2I8xQI4x2Q104x", fault.code, 0, rip, *touched)


def system_info(system: System, description: int) -> bytes:
    cpu = (9, 6, 0x8E0A, 8, 1)  # AMD64, its family, model and stepping; 8 of them; a workstation
    release = (*system.version, system.platform, description)
    return struct.pack("<3H2B5I4x12s12x", *cpu, *release, b"GenuineIntel")


class Facts(NamedTuple):
    """What a dump says of its crash."""

    system: System
    reason: str
    address: int
    threads: int
    when: int

    @property
    def deliberate(self) -> bool:
        """Whether it was a MOZ_CRASH."""
        return self.reason == "EXCEPTION_BREAKPOINT" or self.address == 0


def read_facts(dump: bytes) -> Facts:
    count, directory, when = struct.unpack_from("<2I4xI", dump, 8)
    entries = struct.iter_unpack("<3I", dump[directory : directory + 12 * count])
    rva = {kind: rva for kind, _, rva in entries}
    (threads,) = struct.unpack_from("<I", dump, rva[THREADS])
    (platform,) = struct.unpack_from("<I", dump, rva[SYSTEM_INFO] + 20)
    record = struct.unpack_from("<2I8xQI4x2Q", dump, rva[EXCEPTION] + 8)
    code, detail, address, parameters, *touched = record
    if parameters:
        detail, address = touched
    system = next(s for s in SYSTEMS.values() if s.platform == platform)
    reason = next(f.reason for f in system.faults if (f.code, f.detail) == (code, detail))
    return Facts(system, reason, address, threads, when)


# -- Raw and processed crashes -----------------------------------------------------------

RELEASES = (("release", "145.0.1"), ("beta", "146.0"), ("nightly", "147.0a1"), ("esr", "140.5.0"))
MOZ_CRASH_REASONS = ("MOZ_RELEASE_ASSERT(mRefCnt > 0)", "IPC: “Größe” ≠ 火狐", "MOZ_CRASH(OOM)")
JAVA_STACK = "java.lang.IllegalStateException\n\tat org.mozilla.fenix.HomeActivity.onStart(…)\n"
PRIVATE: Sequence[dict[str, str]] = (
    {},
    {"URL": "https://www.example.com/login?session=8f2c"},
    {"URL": "https://example.com/suche?q=Größe", "Email": "zoe@example.com"},
    {"Email": "renee@example.com", "Comments": "Ça plante à chaque démarrage… 😡"},
)
TOP_FUNCTIONS = (
    "mozilla::dom::Element::GetAttr",
    "js::gc::GCRuntime::sweepPhase",
    "mozilla::layers::CompositorBridgeChild::Destroy",
)
CALLERS = ("nsThread::ProcessNextEvent", "MessageLoop::Run", "XREMain::XRE_main")


def raw_crash(rng: random.Random, crash_id: str, dumps: Mapping[str, bytes]) -> JSONObject:
    """Return the annotations that a collector keeps beside `dumps`.

    Without a main dump it is a Java crash, of Firefox for Android.
    """
    facts = read_facts(dumps[MAIN]) if MAIN in dumps else None
    midnight = midnight_of(crash_id)
    crashed = facts.when if facts else midnight + rng.randrange(80_000)
    # On the crash id's day, whenever the crash was: people send old ones too.
    submitted = min(max(crashed + rng.randint(5, 900), midnight), midnight + 86_399)
    return {
        **browser(rng, crashed),
        **machine(rng, facts.system.name if facts else "Android"),
        **(crash_reason(rng, facts) if facts else {"JavaStackTrace": JAVA_STACK}),
        **rng.choice(PRIVATE),
        "ProductName": "Firefox" if facts else "Fenix",
        "metadata": {
            "collector_notes": rng.choice(([], ["Removed TelemetryClientId from raw crash."])),
            "dump_checksums": {n: hashlib.sha256(body).hexdigest() for n, body in dumps.items()},
            "payload": rng.choice(("json", "multipart")),
            "payload_compressed": rng.choice("01"),
        },
        "submitted_timestamp": utc(submitted + rng.random()).isoformat(),
        "uuid": crash_id,
        "version": 2,
    }


def browser(rng: random.Random, crashed: int) -> dict[str, str]:
    channel, version = rng.choice(RELEASES)
    uptime = rng.randint(1, rng.choice((60, 3_600, 200_000)))
    return {
        "Vendor": "Mozilla",
        "Version": version,
        "ReleaseChannel": channel,
        "BuildID": f"{utc(build_time(crashed)):%Y%m%d}093412",
        "ProcessType": rng.choice(("main", "content", "gpu", "utility")),
        "CrashTime": str(crashed),
        "InstallTime": str(build_time(crashed) + rng.randint(50_000, 300_000)),
        "UptimeTS": f"{uptime}.{rng.randrange(10**6):06}",
        "StartupCrash": "1" if uptime < 20 else "0",
    }


def machine(rng: random.Random, os_name: str) -> dict[str, str]:
    memory, used = rng.choice((4, 8, 16, 32)) << 30, rng.randint(20, 97)
    vendor = rng.choice(("0x8086", "0x10de", "0x1002"))
    environment = {
        "settings": {"locale": rng.choice(("de", "en-US", "zh-CN"))},
        "system": {
            "cpu": {"count": 8, "vendor": "GenuineIntel"},
            "gfx": {"adapters": [{"vendorID": vendor, "GPUActive": True}]},
            "memoryMB": memory >> 20,
            "os": {"name": os_name},
        },
    }
    return {
        "AdapterVendorID": vendor,
        "TotalPhysicalMemory": str(memory),
        "AvailablePhysicalMemory": str(memory * (100 - used) // 100),
        "SystemMemoryUsePercentage": str(used),
        "TelemetryEnvironment": json.dumps(environment),
    }


def crash_reason(rng: random.Random, facts: Facts) -> dict[str, str]:
    if not facts.deliberate:
        return {}
    reason = {"MozCrashReason": rng.choice(MOZ_CRASH_REASONS)}
    if "OOM" in reason["MozCrashReason"]:
        reason["OOMAllocationSize"] = str(rng.choice((24, 4096, 1 << 20, 3 << 26)))
    return reason


def processed_crash(
    rng: random.Random, crash_id: str, raw: JSONObject, dumps: Mapping[str, bytes] = NO_DUMPS
) -> JSONObject:
    """Return what a processor makes of a crash; without dumps, it knows no reason."""
    facts = read_facts(dumps[MAIN]) if MAIN in dumps else None
    top = rng.choice(TOP_FUNCTIONS)
    environment = json.loads(str(raw["TelemetryEnvironment"]))
    received = dt.datetime.fromisoformat(str(raw["submitted_timestamp"]))
    processed: JSONObject = {
        "uuid": crash_id,
        "signature": signature(raw, top),
        "product": raw["ProductName"],
        "version": raw["Version"],
        "build": raw["BuildID"],
        "process_type": raw["ProcessType"],
        "reason": facts and facts.reason,
        "address": facts and f"0x{facts.address:016x}",
        "os_name": environment["system"]["os"]["name"].replace("_", " "),
        "date_processed": (received + dt.timedelta(seconds=rng.randint(2, 600))).isoformat(),
        "uptime": int(float(str(raw["UptimeTS"]))),
        # Protected from here on.
        "url": raw.get("URL"),
        "email": raw.get("Email"),
        "user_id": f"{rng.getrandbits(64):016x}",
        "exploitability": rng.choice(("none", "low", "medium", "high")),
        "memory_info": {"total": raw["TotalPhysicalMemory"]},
    }
    if facts:
        processed["json_dump"] = json_dump(facts, top)
    if BROWSER in dumps:
        processed[BROWSER] = {"json_dump": json_dump(read_facts(dumps[BROWSER]), top)}
    return processed


def signature(raw: JSONObject, top: str) -> str:
    if "JavaStackTrace" in raw:
        return str(raw["JavaStackTrace"]).splitlines()[0]
    if "OOMAllocationSize" in raw:
        small = int(str(raw["OOMAllocationSize"])) <= 1 << 18
        return "OOM | small" if small else f"OOM | large | {top}"
    return top


def json_dump(facts: Facts, top: str) -> JSONObject:
    """What a stack walker prints, and what in it is not for everybody."""
    module = facts.system.modules.split()[1]
    idle = [{"module": module, "function": name, "trust": "cfi"} for name in CALLERS]
    crashed = [{"module": module, "function": top, "trust": "context"}, *idle]
    address = f"0x{facts.address:016x}"
    return {
        "crash_info": {"type": facts.reason, "address": address, "crashing_thread": 0},
        "threads": [{"frames": idle if n else crashed} for n in range(facts.threads)],
        "sensitive": {"exploitability": "low"},
    }


# -- Whole crashes -----------------------------------------------------------------------


def sample(
    rng: random.Random, crash_id: str
) -> tuple[JSONObject, dict[str, bytes], JSONObject | None]:
    """Return one crash: its raw crash, its dumps, and its processed crash if it has one."""
    dumps = sample_dumps(rng, crash_id)
    raw = raw_crash(rng, crash_id, dumps)
    processed = processed_crash(rng, crash_id, raw, dumps) if rng.random() < 0.5 else None
    return raw, dumps, processed


def sample_dumps(rng: random.Random, crash_id: str) -> dict[str, bytes]:
    if rng.random() < 0.02:
        return {}
    os: OS = rng.choice(("windows", "windows", "linux"))
    when = midnight_of(crash_id) + rng.randrange(80_000)
    dumps = {}
    for name in [MAIN, BROWSER] if rng.random() < 0.2 else [MAIN]:
        threads, modules = rng.randint(5, 14), rng.randint(8, 12)
        dumps[name] = minidump(rng, os=os, threads=threads, modules=modules, when=when)
    if rng.random() < 0.05:
        dumps["memory_report"] = memory_report(rng)
    return dumps


def memory_report(rng: random.Random) -> bytes:
    heap = {"process": "Main Process", "path": "heap-allocated", "amount": rng.getrandbits(28)}
    report = {"version": 1, "hasMozMallocUsableSize": True, "reports": [heap]}
    return gzip.compress(json.dumps(report).encode(), mtime=0)  # no time: the same each run


def new_crash_id(rng: random.Random, day: dt.date) -> str:
    """A UUID that ends in a depth digit and yymmdd."""
    random_part = str(uuid.UUID(int=rng.getrandbits(128), version=4))[:-7]
    return f"{random_part}{rng.choice('0000022221')}{day:%y%m%d}"


def midnight_of(crash_id: str) -> int:
    return int(dt.datetime.strptime(crash_id[-6:] + "Z", "%y%m%d%z").timestamp())


def utc(when: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(when, dt.UTC)


def main() -> None:
    # Here, so that the rest can be used without the package.
    from crashmover import open_storage

    parser = argparse.ArgumentParser(description="Save invented crashes into a store.")
    parser.add_argument("store", metavar="STORE", help="a URI, a path or a configured name")
    parser.add_argument("--crashes", type=int, default=20, help="how many (default: 20)")
    parser.add_argument(
        "--days", type=int, default=3, help="days they are spread over (default: 3)"
    )
    parser.add_argument(
        "--last-day",
        type=dt.date.fromisoformat,
        metavar="YYYY-MM-DD",
        help="default: yesterday, UTC",
    )
    parser.add_argument("--seed", type=int, default=1, help="another gives others (default: 1)")
    args = parser.parse_args()

    rng = random.Random(args.seed)
    last_day = args.last_day or dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    with open_storage(args.store) as storage:
        for n in range(args.crashes):
            crash_id = new_crash_id(rng, last_day - dt.timedelta(days=n % args.days))
            raw, dumps, processed = sample(rng, crash_id)
            if processed:
                storage.save_raw_and_processed(raw, dumps, processed, crash_id)
            else:
                storage.save_raw_crash(raw, dumps, crash_id)
            print(crash_id)


if __name__ == "__main__":
    main()
