# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Soundness: whether a crash is what it should be by its own word, whatever other stores have.

A raw crash and a processed crash are JSON objects.  A raw crash names the dumps that its collector
received, each with a checksum; those dumps are there, with just these bytes.
"""

import json
import re
from collections.abc import Container, Mapping, Set
from contextlib import suppress
from functools import partial
from typing import Any, assert_never

from crashmover.comparison import MeasuredCrash, MeasuredPart
from crashmover.crash import Kind, Part, canonical_dump_name
from crashmover.documents import LargeDocument, in_turn, json_object
from crashmover.errors import CorruptCrash, InvalidDumpName

Checksums = dict[str, bytes | None]
"""The dumps that a raw crash names, by their canonical names: each with its SHA-256, or with None
where its checksum is of another kind."""

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII | re.IGNORECASE)
_KEY = b'"dump_checksums"'
_NAMES = re.compile(rb'"dump_checksums"\s*:\s*(\{[^{}]*\})')


def dump_checksums(raw_crash: Mapping[str, Any]) -> Checksums:
    """Return the dumps that a raw crash names.

    Sources of where they stand: Mozilla Antenna, ``antenna/breakpad_resource.py``, which puts them
    into ``metadata.dump_checksums`` since version 2 of the raw crash (commit 3f6502f, 2022-09), and
    before into ``dump_checksums``; Mozilla Socorro, ``socorro/scripts/fetch_crash_data.py``, which
    reads both.  Where both are there, ``metadata`` is the collector's, and the other is an
    annotation that a client sent.
    """
    metadata = raw_crash.get("metadata")
    found = metadata.get("dump_checksums") if isinstance(metadata, dict) else None
    if not isinstance(found, dict):
        found = raw_crash.get("dump_checksums")
    checksums: Checksums = {}
    for name, text in found.items() if isinstance(found, dict) else ():
        if isinstance(text, str):
            with suppress(InvalidDumpName):  # no store can hold such a dump
                digest = bytes.fromhex(text) if _SHA256.fullmatch(text) else None
                checksums[canonical_dump_name(name)] = digest
    return checksums


def read_dump_checksums(raw_crash: Part) -> Checksums:
    """Return the dumps that a raw crash names, as `dump_checksums`.

    :raises CorruptCrash: it is not a JSON object, or `LargeDocument`
    """
    with in_turn(raw_crash):
        return dump_checksums(json_object(raw_crash))


def missing(name: str) -> str:
    """Return what is wrong where a dump is missing."""
    return f"dump {name} is missing: the raw crash has a checksum of it"


def mismatch(name: str) -> str:
    """Return what is wrong where a dump has other bytes than its collector received."""
    return f"dump {name} does not match its checksum in the raw crash"


# With every byte that is read anyway


def demand_soundness(crash: MeasuredCrash, raw_crash: Part | None, kinds: Set[Kind]) -> None:
    """Hold a crash against its own word.

    What is wrong with the raw crash, and which dump is missing, shows at once, and stands in
    `MeasuredCrash.fault`.  The rest shows whenever all of a part has been read.

    :param raw_crash: its raw crash; None where neither that nor a dump is asked for
    :param kinds: the kinds of parts that are asked for, and are as they were stored
    """
    if raw_crash is not None:
        try:
            checksums = read_dump_checksums(raw_crash)
            if Kind.DUMP in kinds:
                _demand_dumps(crash, checksums)
        except CorruptCrash as error:
            crash.fault = error.reason
    for (kind, _), part in crash.measured.items():
        match kind:
            case Kind.PROCESSED_CRASH:
                if kind in kinds:
                    part.examine, part.keeps_bytes = _why_no_document, True
            case Kind.RAW_CRASH | Kind.DUMP:
                pass  # the one has been looked into by now, the others are held against it
            case _:
                assert_never(kind)


def _demand_dumps(crash: MeasuredCrash, checksums: Checksums) -> None:
    for name, expected in checksums.items():
        if (Kind.DUMP, name) not in crash.measured:
            raise CorruptCrash(missing(name))
        if expected:
            crash.measured[Kind.DUMP, name].examine = partial(_why_no_match, expected)


def _why_no_match(expected: bytes, dump: MeasuredPart, _data: bytes | None) -> str | None:
    return None if dump.sha256() == expected else mismatch(dump.part.name)


def _why_no_document(document: MeasuredPart, data: bytes | None) -> str | None:
    part = document.part
    return why_no_document(part if data is None else Part.of_bytes(part.kind, data))


def why_no_document(part: Part) -> str | None:
    """Return why a processed crash is damaged; None where it is a JSON object, or where it is too
    large to be read as JSON: then it is not known to be damaged."""
    try:
        with in_turn(part):
            json_object(part)
    except LargeDocument:
        return None
    except CorruptCrash as error:
        return error.reason
    return None


# Without looking into more than there is a reason to


def note_lacking(crash: MeasuredCrash) -> None:
    """When the raw crash is read, take note in `MeasuredCrash.lacking` of the dumps that it names
    and that the crash does not have."""
    if raw_crash := crash.measured.get((Kind.RAW_CRASH, "")):
        there = {part.name for part in crash.crash.dumps}
        # The list and not the crash, which would refer to itself.
        raw_crash.examine = partial(_note_lacking, crash.lacking, there)
        raw_crash.keeps_bytes = True


def _note_lacking(
    lacking: list[str], there: Set[str], raw_crash: MeasuredPart, data: bytes | None
) -> None:
    lacking.clear()
    part = raw_crash.part
    if data is not None:
        if names_no_other(data, there):
            return
        part = Part.of_bytes(Kind.RAW_CRASH, data)
    try:
        checksums = read_dump_checksums(part)
    except CorruptCrash:  # it is copied as it is, and says nothing
        return
    lacking += sorted(checksums.keys() - there)


def names_no_other(raw_crash: bytes, there: Container[str]) -> bool:
    """Return True if a raw crash names no other dumps than these: without reading all of it as
    JSON, which takes longer than copying it.  False means that it has to be read."""
    if b"\0" in raw_crash:  # UTF-16 or UTF-32
        return False
    at = raw_crash.find(_KEY)
    while at >= 0:
        found = _NAMES.match(raw_crash, at)
        if not found or not _are_there(found[1], there):
            return False
        at = raw_crash.find(_KEY, found.end())
    return True


def _are_there(checksums: bytes, there: Container[str]) -> bool:
    try:
        names = json.loads(checksums)
    except ValueError:
        return False
    return all(name in there for name in names)
