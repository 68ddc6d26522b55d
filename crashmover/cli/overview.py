# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What ``crashmover get`` shows of a crash: where it lies, and what is public in it."""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import IO, Any, BinaryIO, assert_never, cast

from crashmover.cli.console import printable
from crashmover.cli.holding import Held
from crashmover.crash import MAIN_DUMP, Crash, Kind, Part
from crashmover.documents import LargeDocument, json_object
from crashmover.engine.loading import load_alone
from crashmover.errors import (
    CorruptCrash,
    CrashArchived,
    CrashIDNotFound,
    StorageDenied,
    StorageError,
)
from crashmover.external.roles import CrashSource
from crashmover.minidump.reader import MAGIC, read_minidump
from crashmover.redaction import PUBLIC_ANNOTATIONS, PUBLIC_FIELDS, Redactor
from crashmover.soundness import mismatch, missing

LARGEST_MINIDUMP = 64 << 20
"""Bytes of a dump that is looked into at most: it is fetched for that."""

_IN_MEMORY = 8 << 20  # bytes of a dump; the rest waits on disk
_TOO_LARGE = f"not looked into: larger than {LARGEST_MINIDUMP >> 20} MiB"
_NOT_COMPARED = f"not compared with its checksum: larger than {LARGEST_MINIDUMP >> 20} MiB"
_WIDTH = 80
_SIGNATURE_LINES = 4


def overview(storage: CrashSource, crash_id: str) -> dict[str, Any]:
    """Return what is shown of a crash, as it is going to be written as JSON."""
    crash = load(storage, crash_id)
    shown: dict[str, Any] = {"crash_id": crash_id, "store": _store_of(storage, crash), "parts": []}
    held = Held(crash.raw_crash)
    minidumps = {}
    public: dict[Kind, dict[str, Any]] = {}
    for part in sorted(crash.parts, key=_order):
        found = _examine(part, storage.redactor, held)
        if found.minidump is not None:
            minidumps[part.name] = found.minidump
        public[part.kind] = found.public
        where = {"size": found.size, "location": part.location}
        which = {"kind": part.kind.value, "name": part.name}
        shown["parts"].append({**which, **where, **found.remarks})
    shown["parts"] += map(_missing_dump, held.lacking(crash))
    shown["annotations"] = public.get(Kind.RAW_CRASH, {})
    if crash.processed_crash:
        shown["processed"] = public[Kind.PROCESSED_CRASH]
    if minidumps:
        shown["minidumps"] = minidumps
    return shown


def _missing_dump(name: str) -> dict[str, Any]:
    which = {"kind": Kind.DUMP.value, "name": name, "size": None, "location": None}
    return {**which, "missing": True, "error": missing(name), "damaged": True}


@dataclass
class _Examined:
    """What was found of a part.

    :param size: in bytes; None where it cannot be read
    :param public: what may be shown of it, where it is a JSON object
    :param minidump: what it is of, where it is a minidump
    :param remarks: "error": why it cannot be read, for the user may ask for the crash because of
        that; "damaged": whether it is, and not only out of reach; "note": what was not looked at
    """

    size: int | None = None
    public: dict[str, Any] = field(default_factory=dict)
    minidump: dict[str, Any] | None = None
    remarks: dict[str, Any] = field(default_factory=dict)


def _examine(part: Part, redactor: Redactor, held: Held) -> _Examined:
    found = _Examined()
    try:
        match part.kind:
            case Kind.DUMP:
                _look_into(part, held.expected(part.name), found)
            case Kind.RAW_CRASH:
                found.size = part.find_size()
                found.public = _chosen(json_object(part), PUBLIC_ANNOTATIONS)
            case Kind.PROCESSED_CRASH:
                found.size = part.find_size()
                found.public = _public(part, redactor)
            case _:
                assert_never(part.kind)
    except LargeDocument as error:  # which is no damage
        found.remarks["note"] = error.reason
    except CorruptCrash as error:
        found.remarks |= {"error": error.reason, "damaged": True}
    except (CrashArchived, StorageDenied) as error:  # the latter: a link in the place of a file
        found.remarks |= {"error": error.reason, "damaged": False}
    return found


def _order(part: Part) -> tuple[int, bool, str]:
    """The same from every store: the raw crash, the main dump, the other dumps, the processed
    crash."""
    return list(Kind).index(part.kind), part.name != MAIN_DUMP, part.name


def load(storage: CrashSource, crash_id: str) -> Crash:
    """Load the crash, or its processed crash where the store keeps only these."""
    try:
        return storage.load_crash(crash_id)
    except CrashIDNotFound as error:
        try:
            return load_alone(storage, crash_id)
        except CrashIDNotFound:
            raise error from None


def _store_of(storage: CrashSource, crash: Crash) -> str:
    """Return which of several stores the crash comes from: the first that has it."""
    kind = Kind.RAW_CRASH if crash.raw_crash else Kind.PROCESSED_CRASH
    for store in storage.stores if len(storage.stores) > 1 else ():
        with suppress(StorageError):
            if store.has_crash(crash.crash_id, kind):
                return store.uri
    return storage.uri


# What is public


def _public(part: Part, redactor: Redactor) -> dict[str, Any]:
    """Return what may be shown of a processed crash; an object or a list in the place of a text
    is left out, as no schema says what is public in it.

    :raises CorruptCrash: it is not a JSON object, or too large to be looked into
    """
    redacted = redactor.redact(json_object(part))
    flat = {key: v for key, v in redacted.items() if not isinstance(v, dict | list)}
    return {key: v for key, v in _chosen(flat, PUBLIC_FIELDS).items() if v is not None}


def _chosen(document: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    chosen = {name: document[name] for name in names if name in document}
    try:
        # NaN and infinity are no JSON: as text.  As deep as it is going to be written.
        [[plain]] = json.loads(json.dumps([[chosen]]), parse_constant=str)
    except RecursionError:
        return {}
    return cast(dict[str, Any], plain)


# What a dump is


def _look_into(part: Part, expected: bytes | None, found: _Examined) -> None:
    """Find out how large a dump is, what it is of where it is a minidump, and whether it is what
    was received.

    A large one, and one that is no minidump and has no checksum, is not read to its end where its
    size is known.

    :param expected: the SHA-256 that it should have
    """
    size, head, digest = 0, b"", hashlib.sha256()
    known: int | None = None
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
        for chunk in part.chunks():
            if not size:  # a store that is far away knows it for free by now
                known = part.check()
            head += chunk[: len(MAGIC) - len(head)]
            size += len(chunk)
            digest.update(chunk)
            may_be_one = MAGIC.startswith(head)
            is_wanted = may_be_one or expected is not None
            if known is not None and (known > LARGEST_MINIDUMP or not is_wanted):
                size = known
                found.remarks |= {"note": _NOT_COMPARED} if expected else {}
                break
            if may_be_one and size <= LARGEST_MINIDUMP:
                spool.write(chunk)
        else:
            if expected not in (None, digest.digest()):
                found.remarks |= {"error": mismatch(part.name), "damaged": True}
        found.size = size
        if head == MAGIC:
            is_large = size > LARGEST_MINIDUMP
            found.minidump = {"error": _TOO_LARGE} if is_large else _minidump(spool)


def _minidump(file: IO[bytes]) -> dict[str, Any]:
    try:
        found = read_minidump(cast(BinaryIO, file))
    except CorruptCrash as error:
        return {"error": error.reason}
    return {**asdict(found), "time": found.time.isoformat() if found.time else None}


# As text


def as_text(shown: Mapping[str, Any]) -> str:
    """Return an overview for people to read."""
    lines = [f"crash {shown['crash_id']}", f"store {printable(shown['store'])}"]
    lines += ["", "parts", *_part_lines(shown["parts"])]
    if all(part["kind"] != Kind.RAW_CRASH for part in shown["parts"]):
        lines.append("  no raw_crash: copies and checks see no crash here")
    if shown["annotations"]:
        lines += ["", "annotations", *_table(shown["annotations"])]
    if "processed" in shown:
        lines += ["", "processed crash", *_table(shown["processed"])]
    for name, minidump in shown.get("minidumps", {}).items():
        lines += ["", f"minidump {name}", *_minidump_lines(minidump)]
    return "\n".join(lines)


def _part_lines(parts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each part, and below it where it lies: that is too long to stand beside
    it, and is not shortened, for it is there to be copied."""
    rows = [
        (
            f"{part['kind']} {part['name']}".strip(),
            _size_of(part),
            filter(None, (part.get("error"), part.get("note"), part["location"])),
        )
        for part in parts
    ]
    left = max((len(name) for name, _, _ in rows), default=0)
    right = max((len(size) for _, size, _ in rows), default=0)
    for name, size, below in rows:
        yield f"  {name.ljust(left)}  {size.rjust(right)}"
        yield from (f"    {printable(text)}" for text in below)


def _size_of(part: Mapping[str, Any]) -> str:
    if "missing" in part:
        return "missing"
    size = "" if part["size"] is None else f"{part['size']:,} bytes"
    if "error" not in part:
        return size
    return f"{'damaged' if part['damaged'] else 'unreadable'}, {size}".removesuffix(", ")


def _minidump_lines(found: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing that is known."""
    if "error" in found:
        return [f"  {found['error']}"]
    system, version = found["os"] or "", found["os_version"] or ""
    rows = {
        "system": version if version.startswith(system) else f"{system} {version}".strip(),
        "cpu": f"{found['cpus']} x {found['cpu']}" if found["cpu"] else None,
        "time": found["time"],
        **{name: found[name] for name in ("reason", "address", "threads", "modules")},
        "main module": found["main_module"],
        "incomplete": "some of it lies beyond its end" if found["incomplete"] else None,
    }
    return _table({name: value for name, value in rows.items() if value not in (None, "")})


def _table(values: Mapping[str, Any]) -> list[str]:
    """Return a line for each value; a signature may take a few."""
    width = max(map(len, values), default=0)
    lines = []
    for name, value in values.items():
        most = _SIGNATURE_LINES if name == "signature" else 1
        first, *more = _in_lines(value, _WIDTH - width - 4, most)
        lines.append(f"  {name.ljust(width)}  {first}".rstrip())
        lines += [" " * (width + 4) + line for line in more]
    return lines or ["  nothing that can be shown"]


def _in_lines(value: Any, room: int, most: int) -> list[str]:
    """Return a value on so many lines of this length at most, shortened if need be."""
    text = printable(value if isinstance(value, str) else json.dumps(value))
    if len(text) > room * most:
        text = f"{text[: room * most - 1]}…"
    return [text[start : start + room] for start in range(0, len(text), room)] or [""]
