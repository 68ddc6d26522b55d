# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crashes to move, the same for the same seed, and what must become of them.

They are put down without the package: what it does is held against the layouts as they are
documented, not against itself.
"""

import datetime as dt
import gzip
import hashlib
import json
import math
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

MAIN, BROWSER, MEMORY_REPORT = (
    "upload_file_minidump",
    "upload_file_minidump_browser",
    "memory_report",
)
RAW, DUMP, PROCESSED = "raw_crash", "dump", "processed_crash"

LAST_DAY, DAYS = dt.date(2026, 11, 20), 3
DEPTHS = "0001222222"
MEDIAN_DUMP, MOST_DUMP = 150_000, 2_000_000
WORDS = (
    "nightly",
    "release",
    "Firefox",
    "mozglue",
    "xul",
    "ntdll",
    "gpu",
    "crème",
    "Größe",
    "火狐",
)

Manifest = dict[str, str]
"""Where a part is, in words of one kind of store -> the SHA-256 of its bytes."""

Bodies = dict[tuple[str, str], bytes]
"""The kind and name of each part of a crash -> its bytes."""


@dataclass(frozen=True)
class Part:
    """One blob of a crash, and where it lies in each kind of store."""

    crash_id: str
    kind: str
    name: str
    sha256: str
    size: int

    @property
    def file(self) -> str:
        """Its path in a file system."""
        suffixes = {RAW: ".json", PROCESSED: ".jsonz", DUMP: f".{self.name}.dump"}
        suffix = ".dump" if self.name == MAIN else suffixes[self.kind]
        return f"{directory_of(self.crash_id)}/{self.crash_id}{suffix}"

    @property
    def key(self) -> str:
        """Its key in a bucket."""
        if self.kind == RAW:
            return f"v1/raw_crash/20{self.crash_id[-6:]}/{self.crash_id}"
        kind = "dump" if self.name == MAIN else self.name or self.kind
        return f"v1/{kind}/{self.crash_id}"

    @property
    def row(self) -> str:
        """Its rows in a database."""
        return f"{self.crash_id} {self.kind} {self.name}"


def directory_of(crash_id: str) -> str:
    """Return where a crash lies in a file system."""
    pairs = [crash_id[2 * n : 2 * n + 2] for n in range(int(crash_id[-7]))]
    return "/".join([f"20{crash_id[-6:]}", "name", *pairs])


@dataclass
class Corpus:
    """Crashes in the layout of a file system.

    :param root: the directory that they are all in
    """

    root: Path
    parts: list[Part]

    @cached_property
    def crash_ids(self) -> list[str]:
        """In the order in which they were made."""
        return list(dict.fromkeys(part.crash_id for part in self.parts))

    @property
    def count(self) -> int:
        """How many crashes there are."""
        return len(self.crash_ids)

    @property
    def size(self) -> int:
        """The bytes of all parts."""
        return sum(part.size for part in self.parts)

    @property
    def files(self) -> Manifest:
        """What a file system must hold; of a processed crash its JSON."""
        return {part.file: part.sha256 for part in self.parts}

    @property
    def rows(self) -> Manifest:
        """What a database must hold."""
        return {part.row: part.sha256 for part in self.parts}

    @property
    def objects(self) -> Manifest:
        """What a bucket must hold."""
        lists = {key: sha256(body) for key, body in self._lists_of_dumps()}
        return lists | {part.key: part.sha256 for part in self.parts}

    def stage(self, directory: Path) -> Path:
        """Lay out the objects of a bucket, for those who only know files, and return where.

        What is the same as in a file system is the same file: as warm in the cache.
        """
        for part in self.parts:
            path, source = directory / part.key, self.root / part.file
            path.parent.mkdir(parents=True, exist_ok=True)
            if part.kind == PROCESSED:
                path.write_bytes(gzip.decompress(source.read_bytes()))
            else:
                path.hardlink_to(source)
        for key, body in self._lists_of_dumps():
            (directory / key).parent.mkdir(parents=True, exist_ok=True)
            (directory / key).write_bytes(body)
        return directory

    def _lists_of_dumps(self) -> Iterator[tuple[str, bytes]]:
        names: dict[str, list[str]] = {crash_id: [] for crash_id in self.crash_ids}
        for part in self.parts:
            if part.kind == DUMP:
                names[part.crash_id].append(part.name)
        for crash_id, found in names.items():
            yield f"v1/dump_names/{crash_id}", json.dumps(sorted(found)).encode()


# -- Making them ---------------------------------------------------------------------------

Make = Callable[[random.Random, str], Bodies]
"""Makes the parts of a crash."""


def make_corpus(root: Path, crashes: int, make: Make, seed: int = 1) -> Corpus:
    """Make crashes and write them down."""
    rng = random.Random(seed)
    parts = []
    for _ in range(crashes):
        crash_id = new_crash_id(rng)
        bodies = make(rng, crash_id)
        (root / directory_of(crash_id)).mkdir(parents=True, exist_ok=True)
        for (kind, name), body in bodies.items():
            part = Part(crash_id, kind, name, sha256(body), len(body))
            packed = gzip.compress(body, 1, mtime=0) if kind == PROCESSED else body
            (root / part.file).write_bytes(packed)
            parts.append(part)
    return Corpus(root, parts)


def new_crash_id(rng: random.Random) -> str:
    """Return an id of one of the days, of a depth that is as frequent as with collectors."""
    day = LAST_DAY - dt.timedelta(days=rng.randrange(DAYS))
    h = f"{rng.getrandbits(128):032x}"
    start = "-".join([h[:8], h[8:12], h[12:16], h[16:20], h[20:25]])
    return f"{start}{rng.choice(DEPTHS)}{day:%y%m%d}"


def realistic(rng: random.Random, crash_id: str) -> Bodies:
    """A crash as large as they are: one dump of about 150 kB, and what else there may be."""
    size = min(MOST_DUMP, math.exp(rng.gauss(math.log(MEDIAN_DUMP), 0.7)))
    dumps = {MAIN: minidump(rng, int(size))}
    if rng.random() < 0.10:
        dumps[BROWSER] = minidump(rng, 30_000)
    if rng.random() < 0.03:
        dumps[MEMORY_REPORT] = gzip.compress(rng.randbytes(20_000).hex().encode(), 6, mtime=0)
    if rng.random() < 0.02:
        dumps = {}
    bodies = with_dumps(raw_crash(rng, crash_id, dumps), dumps)
    if rng.random() < 0.5:
        bodies[PROCESSED, ""] = processed_crash(rng, crash_id)
    return bodies


def small(rng: random.Random, crash_id: str) -> Bodies:
    """A crash as small as can be, for where their number matters."""
    dump = b"MDMP" + rng.randbytes(1020)
    raw = {"ProductName": "Firefox", "metadata": checksums({MAIN: dump}), "uuid": crash_id}
    return with_dumps(json.dumps(raw).ljust(300).encode(), {MAIN: dump})


def large(size: int) -> Make:
    """A crash with a dump of so many bytes."""

    def make(rng: random.Random, crash_id: str) -> Bodies:
        dumps = {MAIN: b"MDMP" + rng.randbytes(2**20) * (size // 2**20)}
        return with_dumps(raw_crash(rng, crash_id, dumps), dumps)

    return make


def with_dumps(raw: bytes, dumps: Mapping[str, bytes]) -> Bodies:
    return {(RAW, ""): raw, **{(DUMP, name): body for name, body in dumps.items()}}


def minidump(rng: random.Random, size: int) -> bytes:
    """Bytes that compress about as well as a minidump's do."""
    body = bytearray(b"MDMP\x93\xa7\x00\x00")
    while len(body) < size:
        body += rng.randbytes(2048) + bytes(1024) + rng.randbytes(8) * 128
    return bytes(body)


def raw_crash(rng: random.Random, crash_id: str, dumps: Mapping[str, bytes]) -> bytes:
    """About 10 kB of annotations."""
    raw: dict[str, object] = {
        f"Annotation{n}": " ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for n in range(60)
    }
    environment = {f"key{rng.getrandbits(24):x}": rng.choice(WORDS) for _ in range(220)}
    raw["TelemetryEnvironment"] = json.dumps(environment)
    raw |= {"metadata": checksums(dumps), "uuid": crash_id, "version": 2}
    return json.dumps(raw, ensure_ascii=rng.random() < 0.5).encode()


def checksums(dumps: Mapping[str, bytes]) -> dict[str, object]:
    """What a collector says about the dumps."""
    return {"dump_checksums": {name: sha256(body) for name, body in dumps.items()}}


def processed_crash(rng: random.Random, crash_id: str) -> bytes:
    """About 50 kB of JSON, with something in it that is not for everybody."""
    dump = {"sensitive": {"exploitability": "high"}, "threads": rng.randbytes(25_000).hex()}
    processed = {"uuid": crash_id, "email": "a@example.com", "json_dump": dump}
    return json.dumps(processed).encode()


# -- What is there -------------------------------------------------------------------------


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files_in(root: Path) -> Manifest:
    """Return what is in a directory: the path of each file below it, and the SHA-256 of what
    is in it, unpacked.

    Then the files are not kept in memory: so whoever writes next finds as much of that free, and
    as lately used, as whoever has written these.  On a virtual machine, memory that is new to it
    may take longer to be had than all else that a copy does.
    """
    return {path.relative_to(root).as_posix(): _sha256_of(path) for path in _walk(root)}


def _walk(root: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(root):
        yield from (Path(directory) / name for name in names)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        if path.suffix == ".jsonz":
            digest = sha256(gzip.decompress(file.read()))
        else:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return digest


def differences(found: Manifest, wanted: Manifest) -> list[str]:
    """Return what is wrong, one line for each kind of fault."""
    faults = defaultdict(list)
    for name in wanted.keys() | found.keys():
        if name not in found:
            faults["missing"].append(name)
        elif name not in wanted:
            faults["not asked for"].append(name)
        elif found[name] != wanted[name]:
            faults["other bytes"].append(name)
    return [f"{len(names)} {fault}: {min(names)}" for fault, names in sorted(faults.items())]
