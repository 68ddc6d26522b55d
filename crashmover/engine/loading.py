# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What is read of a crash: loaded as far as it is needed, redacted, held against its own word."""

from collections.abc import Set
from contextlib import AbstractContextManager, suppress
from typing import BinaryIO, assert_never

from crashmover import documents
from crashmover.comparison import MeasuredCrash
from crashmover.crash import COLLECTED, MARKERS, Crash, Kind, Part
from crashmover.documents import json_object, json_part
from crashmover.errors import CrashIDNotFound
from crashmover.external.roles import CrashSource
from crashmover.redaction import Redactor
from crashmover.soundness import demand_soundness, note_lacking


def kinds_to_load(kinds: Set[Kind], *, verify: bool) -> frozenset[Kind]:
    """Return the kinds of parts that are read where these are copied or compared.  Dumps are held
    against the raw crash."""
    needs_raw_crash = verify and Kind.DUMP in kinds
    return frozenset({*kinds, Kind.RAW_CRASH} if needs_raw_crash else kinds)


def measured(
    crash: Crash, kinds: Set[Kind], *, verify: bool, redactor: Redactor | None = None
) -> MeasuredCrash:
    """Return a crash that is measured while it is copied.

    :param crash: with parts of `kinds_to_load`
    :param kinds: those that are copied
    :param verify: whether the crash has to be sound, see `demand_soundness`; else the dumps are
        noted that it lacks
    """
    raw_crash = crash.raw_crash
    if not all(part.kind in kinds for part in crash.parts):
        crash = Crash(crash.crash_id, [part for part in crash.parts if part.kind in kinds])
    if redactor:
        crash = redacted(crash, redactor)
    found = MeasuredCrash(crash, hashing=verify)
    if verify:
        as_stored = {k for k in kinds if not is_redacted(k)} if redactor else kinds
        demand_soundness(found, raw_crash, as_stored)
    elif kinds >= COLLECTED:
        note_lacking(found)
    return found


def is_redacted(kind: Kind) -> bool:
    """Return True if a part of this kind is copied or shown without what is protected in it."""
    match kind:
        case Kind.PROCESSED_CRASH:
            return True
        case Kind.RAW_CRASH | Kind.DUMP:
            return False
        case _:
            assert_never(kind)


def redacted(crash: Crash, redactor: Redactor) -> Crash:
    """Return the crash; what `is_redacted` of it is redacted each time that it is read."""

    def redacted_part(part: Part) -> Part:
        def open_redacted() -> AbstractContextManager[BinaryIO]:
            with documents.in_turn(part):
                redacted = json_part(part.kind, redactor.redact(json_object(part)))
                return documents.kept(redacted.read())

        return Part(part.kind, part.name, open_redacted)

    parts = [redacted_part(p) if is_redacted(p.kind) else p for p in crash.parts]
    return Crash(crash.crash_id, parts)


def load_alone(storage: CrashSource, crash_id: str) -> Crash:
    """Load what there is of a crash without a raw crash: its processed crash.

    :raises CrashIDNotFound: its processed crash is missing, too
    """
    *others, last = (marker for marker in MARKERS if marker is not Kind.RAW_CRASH)
    for marker in others:
        with suppress(CrashIDNotFound):
            return storage.load_crash(crash_id, {marker})
    return storage.load_crash(crash_id, {last})
