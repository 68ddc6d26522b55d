# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The conformance suite bites: for each of its cases, a store that is broken in one way, as
stores have been broken in the field, and the case that fails for it."""

import gzip
import inspect
import io
import os
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from crashmover import crashid
from crashmover.crash import ALL_KINDS, MAIN_DUMP, MARKERS, Crash, Kind, Part
from crashmover.errors import CrashIDNotFound, StorageError
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.loading import Size, sizes_of
from crashmover.external.roles import Store
from crashmover.testing import StorageConformance, all_cases, held_by
from tests import broken_creates, broken_keeps, broken_removals

Broken = type[FSPermanentStorage]


class WritesInPlace(FSPermanentStorage):
    """Writes files where they will be, the raw crash first, as the scripts of old did."""

    def save_crash(self, crash: Crash) -> None:
        where = self.root.joinpath(*self.layout.directories(crash.crash_id)[0])
        where.mkdir(parents=True, exist_ok=True)
        for part in crash.parts:
            with (where / self.layout.file_name(crash.crash_id, part.kind, part.name)).open(
                "wb"
            ) as file:
                for chunk in part.chunks():
                    packed = part.kind is Kind.PROCESSED_CRASH
                    file.write(gzip.compress(chunk) if packed else chunk)

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        return CrashStorageBase.save_crashes(self, crashes)


class TextMode(FSPermanentStorage):
    """Takes bytes for lines."""

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        return super().save_crashes(
            [_map(crash, lambda data: data.replace(b"\r\n", b"\n")) for crash in crashes]
        )


class InventsCrashes(FSPermanentStorage):
    """A read that fails is an empty crash."""

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        try:
            return super().load_crash(crash_id, kinds)
        except StorageError:
            return Crash(crash_id, [Part.of_bytes(Kind.RAW_CRASH, b"{}")])


class LoadsAllKinds(FSPermanentStorage):
    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        return super().load_crash(crash_id, ALL_KINDS)


class TellsSizeOnDisk(FSPermanentStorage):
    """The packed size of a processed crash is not its size."""

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        crash = super().load_crash(crash_id, kinds)
        return Crash(crash_id, [Part(p.kind, p.name, p.open, p.size or 1) for p in crash.parts])


class NamesTheDirectory(FSPermanentStorage):
    """Says of each part where the crash lies."""

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        crash = super().load_crash(crash_id, kinds)
        where = str(self.root)
        return Crash(crash_id, [replace(part, locate=lambda: where) for part in crash.parts])


class HandsOutOneFile(FSPermanentStorage):
    """Opens a part when it is loaded, once for all."""

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        def part(part: Part) -> Part:
            file = io.BytesIO(part.read())
            return Part(part.kind, part.name, lambda: file, part.size)

        return Crash(crash_id, [part(p) for p in super().load_crash(crash_id, kinds).parts])


class RefusesSecondSave(FSPermanentStorage):
    def save_crash(self, crash: Crash) -> None:
        if self.has_crash(crash.crash_id):
            raise StorageError("is there already", crash_id=crash.crash_id)
        super().save_crash(crash)


class KeepsOldDumps(WritesInPlace):
    """Replaces the raw crash, and leaves dumps that are not the crash's any more."""


class KeepsOldRawCrash(FSPermanentStorage):
    """Takes the same dumps for the same crash."""

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        new = [crash for crash in crashes if not self.has_crash(crash.crash_id)]
        return super().save_crashes(new) if new else [None] * len(crashes)


class ReplacesAllWithProcessed(FSPermanentStorage):
    def save_crash(self, crash: Crash) -> None:
        if crash.raw_crash is None and self.has_crash(crash.crash_id):
            self.remove(crash.crash_id)
        super().save_crash(crash)


class HidesProcessedAlone(FSPermanentStorage):
    def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
        return super().has_crash(crash_id, Kind.RAW_CRASH)


class FindsProcessedAlone(FSPermanentStorage):
    """Finds a crash by any of its files."""

    def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
        return any(super(FindsProcessedAlone, self).has_crash(crash_id, each) for each in MARKERS)


class DropsLateDumps(FSPermanentStorage):
    def save_crash(self, crash: Crash) -> None:
        if crash.raw_crash is not None:
            super().save_crash(crash)


class TakesOrphanedDumps(WritesInPlace):
    """Dumps without a raw crash wait for any raw crash that comes by."""


class SavesNothingGladly(FSPermanentStorage):
    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        results = super().save_crashes(crashes)
        return [
            error if crash.parts else None for crash, error in zip(crashes, results, strict=True)
        ]


class RenamesMainDump(FSPermanentStorage):
    """Calls the main dump ``minidump`` and never back."""

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        names = {MAIN_DUMP: "minidump"}
        crash = super().load_crash(crash_id, kinds)
        return Crash(
            crash_id,
            [Part(p.kind, names.get(p.name, p.name), p.open, p.size) for p in crash.parts],
        )


class FindsAnything(FSPermanentStorage):
    """Finds whatever it is asked for."""

    def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
        return True


class StripsCrashIDs(FSPermanentStorage):
    """``$`` in a regular expression lets a newline through."""

    def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
        return super().has_crash(crash_id.strip(), kind)

    def remove(self, crash_id: str) -> None:
        super().remove(crash_id.strip())


class CommitsEarly(WritesInPlace):
    """The raw crash is written before its dumps: a torn crash is visible."""


class LeavesWhatFailed(WritesInPlace):
    """A save that fails leaves what it had written."""


class UnlinksFirst(FSPermanentStorage):
    """Writes over a crash that is there."""

    def save_crash(self, crash: Crash) -> None:
        WritesInPlace.save_crash(self, crash)  # type: ignore[arg-type]


class BelievesSizes(FSPermanentStorage):
    """Does not count what it reads."""

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        unsized = [
            Crash(c.crash_id, [Part(p.kind, p.name, p.open) for p in c.parts]) for c in crashes
        ]
        return super().save_crashes(unsized)


class ReadsWhateverIsThere(FSPermanentStorage):
    """A reader that does not notice when a crash is exchanged under it: here it always is."""

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        crash = super().load_crash(crash_id, kinds)
        return Crash(crash_id, [p for p in crash.parts if p.kind is not Kind.DUMP])


class OnlyOneSaver(FSPermanentStorage):
    """Refuses a save while another is going on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.saving = Lock()
        self.saves = 0

    def save_crash(self, crash: Crash) -> None:
        self.saves += 1
        if self.saves > 1:
            raise StorageError("busy", crash_id=crash.crash_id)
        super().save_crash(crash)


class AllOrNothingBatch(FSPermanentStorage):
    """One bad crash fails all that came with it."""

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        results = super().save_crashes(crashes)
        failed = [error for error in results if error]
        return [failed[0]] * len(crashes) if failed else results


class LoadsInItsOwnOrder(FSPermanentStorage):
    """What a query gives, as it comes: not as it was asked for."""

    def load_crashes(
        self, crash_ids: Sequence[str], kinds: Set[Kind] = ALL_KINDS
    ) -> Iterator[Crash | Exception]:
        return super().load_crashes(sorted(crash_ids), kinds)


class FirstOfTwo(FSPermanentStorage):
    """Of a crash that is twice in a batch, the first is kept."""

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        return super().save_crashes(list(reversed(crashes)))


class MindsEmptyBatches(FSPermanentStorage):
    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        return super().save_crashes([*crashes, crashes[0]])[:-1]


class ReadsWhole(FSPermanentStorage):
    """Takes a part into memory in one piece."""

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        def slurp(part: Part) -> Part:
            with part.open() as file:
                return Part.of_bytes(part.kind, file.read(), part.name)

        return super().save_crashes(
            [Crash(crash.crash_id, [slurp(part) for part in crash.parts]) for crash in crashes]
        )


class RemovesTheLeaf(FSPermanentStorage):
    """Removes the directory that the crash shares with its neighbours."""

    def remove(self, crash_id: str) -> None:
        super().remove(crash_id)
        leaf = self.root.joinpath(*self.layout.directories(crash_id)[0])
        for file in leaf.glob("*.*") if leaf.exists() else ():
            file.unlink()


class RemovesGladly(FSPermanentStorage):
    def remove(self, crash_id: str) -> None:
        if self.has_crash(crash_id):
            super().remove(crash_id)


class LeavesProcessed(FSPermanentStorage):
    """Removes by the raw crash: a processed crash alone stays."""

    def remove(self, crash_id: str) -> None:
        if not self.has_crash(crash_id):
            raise CrashIDNotFound(crash_id, uri=self.uri)
        super().remove(crash_id)


class ListsAsFound(FSPermanentStorage):
    """Lists by id, whatever the day."""

    def new_crashes(
        self, since: date | None = None, until: date | None = None, kind: Kind = Kind.RAW_CRASH
    ) -> Iterator[str]:
        yield from sorted(super().new_crashes(since, until, kind))


class ListsTheRemoved(FSPermanentStorage):
    """Lists what it has listed once, or has removed."""

    removed: tuple[str, ...] = ()

    def remove(self, crash_id: str) -> None:
        super().remove(crash_id)
        self.removed += (crash_id,)

    def new_crashes(
        self, since: date | None = None, until: date | None = None, kind: Kind = Kind.RAW_CRASH
    ) -> Iterator[str]:
        known = {*super().new_crashes(since, until, kind), *self.removed}
        yield from sorted(known, key=crashid.sort_key)


class EndsBeforeUntil(FSPermanentStorage):
    """The last day is not included."""

    def new_crashes(
        self, since: date | None = None, until: date | None = None, kind: Kind = Kind.RAW_CRASH
    ) -> Iterator[str]:
        for crash_id in super().new_crashes(since, until, kind):
            if until is None or crashid.date_of(crash_id) < until:
                yield crash_id


class ListsAnything(FSPermanentStorage):
    """Takes any of its files for a crash."""

    def new_crashes(
        self, since: date | None = None, until: date | None = None, kind: Kind = Kind.RAW_CRASH
    ) -> Iterator[str]:
        both = {i for each in MARKERS for i in super(ListsAnything, self).new_crashes(kind=each)}
        yield from sorted(both, key=crashid.sort_key)


class ListsDumps(FSPermanentStorage):
    """Lists raw crashes where it is asked for a kind that no listing is of."""

    def new_crashes(
        self, since: date | None = None, until: date | None = None, kind: Kind = Kind.RAW_CRASH
    ) -> Iterator[str]:
        return super().new_crashes(since, until, kind if kind in MARKERS else Kind.RAW_CRASH)


class CountsEveryPart(FSPermanentStorage):
    """Adds the raw crash and the dumps to the size of a processed crash."""

    def crash_sizes(
        self, since: date | None = None, until: date | None = None, kind: Kind = Kind.RAW_CRASH
    ) -> Iterator[tuple[str, Size]]:
        yield from sizes_of(self, self.new_crashes(since, until, kind), ALL_KINDS)


class NeedsItsRoot(FSPermanentStorage):
    """Cannot be listed before the first save."""

    def new_crashes(
        self, since: date | None = None, until: date | None = None, kind: Kind = Kind.RAW_CRASH
    ) -> Iterator[str]:
        os.close(os.open(self.root, os.O_RDONLY))
        yield from super().new_crashes(since, until, kind)


class ProbesWithACrash(FSPermanentStorage):
    """Finds out whether it can be saved to by saving a crash."""

    def probe_write(self) -> datetime:
        self.save_crash(Crash(crashid.create(), [Part.of_bytes(Kind.RAW_CRASH, b"{}")]))
        return datetime.now(UTC)


class NewEveryTime(FSPermanentStorage):
    def identity(self) -> object:
        return object()


class TakesItselfForAnother(FSPermanentStorage):
    """Goes by the object, and not by what it stands for."""

    def is_same_store(self, other: Store, *, probe: bool = False) -> bool | None:
        return self is other


class IgnoresFiles(FSPermanentStorage):
    """Takes no dumps but those in memory: the path instead of the bytes."""

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        return super().save_crashes([_map(crash, _unless_dump) for crash in crashes])


def _unless_dump(data: bytes) -> bytes:
    return b"" if data == b"dump" else data


class RedactsOnSaving(FSPermanentStorage):
    """What is protected is lost for good."""

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        return super().save_crashes(
            [_map(crash, lambda data: data.replace(b"secret", b"")) for crash in crashes]
        )


class LosesProcessed(FSPermanentStorage):
    """Saves a processed crash where nobody looks."""

    def save_crash(self, crash: Crash) -> None:
        if crash.raw_crash is not None:
            super().save_crash(crash)


class MendsJSON(FSPermanentStorage):
    """What is not JSON is an empty crash."""

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        return super().save_crashes([_map(crash, lambda _: b"{}") for crash in crashes])


def _map(crash: Crash, change: Callable[[bytes], bytes]) -> Crash:
    return Crash(
        crash.crash_id,
        [Part.of_bytes(part.kind, change(part.read()), part.name) for part in crash.parts],
    )


BREAKS: dict[str, Broken] = {
    **broken_creates.BREAKS,
    **broken_keeps.BREAKS,
    **broken_removals.BREAKS,
    "test_a_batch_may_hold_a_crash_twice": FirstOfTwo,
    "test_a_crash_of_nothing_is_refused": SavesNothingGladly,
    "test_a_listing_is_of_what_says_that_a_crash_is_there": ListsDumps,
    "test_a_part_can_be_opened_again_and_at_the_same_time": HandsOutOneFile,
    "test_a_part_is_there_as_far_as_its_marker_is": FindsProcessedAlone,
    "test_a_part_that_is_not_as_long_as_announced_is_refused": BelievesSizes,
    "test_a_probe_of_saving_is_seen_by_nobody_and_leaves_nothing": ProbesWithACrash,
    "test_a_probe_of_saving_leaves_nothing": ProbesWithACrash,
    "test_a_processed_crash_alone_can_be_removed": LeavesProcessed,
    "test_a_processed_crash_is_found_by_itself": HidesProcessedAlone,
    "test_a_processed_crash_is_saved_by_its_uuid": LosesProcessed,
    "test_a_processed_crash_touches_only_itself": ReplacesAllWithProcessed,
    "test_a_raw_crash_replaces_the_raw_crash_and_all_dumps": KeepsOldDumps,
    "test_a_raw_crash_with_the_same_dumps_is_replaced": KeepsOldRawCrash,
    "test_a_reader_never_sees_half_of_two_crashes": ReadsWhateverIsThere,
    "test_a_save_that_fails_does_not_tear_the_crash_before": UnlinksFirst,
    "test_a_save_that_fails_leaves_nothing_to_see": LeavesWhatFailed,
    "test_a_size_that_is_told_is_true": TellsSizeOnDisk,
    "test_an_empty_batch_is_no_work": MindsEmptyBatches,
    "test_an_empty_store_lists_nothing_and_can_be_used": NeedsItsRoot,
    "test_both_days_of_a_range_are_in_it": EndsBeforeUntil,
    "test_bytes_out_are_bytes_in": TextMode,
    "test_crashes_are_listed_by_day_and_id": ListsAsFound,
    "test_crashes_come_back_as_python_values": RedactsOnSaving,
    "test_crashes_loaded_together_are_those_that_are_loaded_one_by_one": LoadsInItsOwnOrder,
    "test_dumps_alone_are_added_to_the_raw_crash": DropsLateDumps,
    "test_dumps_alone_need_a_raw_crash": TakesOrphanedDumps,
    "test_dumps_are_saved_from_memory_and_from_files": IgnoresFiles,
    "test_each_crash_of_a_batch_has_its_own_result": AllOrNothingBatch,
    "test_ids_that_are_invalid_are_not_removed": StripsCrashIDs,
    "test_ids_that_are_invalid_are_refused": StripsCrashIDs,
    "test_it_knows_itself_by_a_second_object": TakesItselfForAnother,
    "test_it_says_what_it_is": NewEveryTime,
    "test_json_that_is_none_is_said_to_be_corrupt": MendsJSON,
    "test_large_parts_stream": ReadsWhole,
    "test_many_threads_use_one_store": OnlyOneSaver,
    "test_names_that_are_paths_or_reserved_are_refused": FindsAnything,
    "test_only_the_kinds_asked_for_are_loaded": LoadsAllKinds,
    "test_raw_and_processed_crashes_are_listed_apart": ListsAnything,
    "test_removing_takes_all_of_the_crash_and_nothing_else": RemovesTheLeaf,
    "test_removing_what_is_not_there_is_said": RemovesGladly,
    "test_savers_of_one_crash_do_not_mix": OnlyOneSaver,
    "test_saving_twice_is_saving_once": RefusesSecondSave,
    "test_the_crash_is_visible_only_when_all_of_it_is_saved": CommitsEarly,
    "test_the_main_dump_has_one_name": RenamesMainDump,
    "test_the_size_of_a_crash_is_that_of_all_its_parts": CountsEveryPart,
    "test_what_a_collector_makes_is_replaced_together": KeepsOldDumps,
    "test_what_a_crash_lacks_is_not_found": InventsCrashes,
    "test_what_is_not_there_is_not_found": InventsCrashes,
    "test_what_is_saved_is_there_to_the_byte": TextMode,
    "test_what_was_removed_is_not_listed": ListsTheRemoved,
    "test_where_a_part_lies_is_said_on_one_line_or_not_at_all": NamesTheDirectory,
}


def run_case(case: str, storage: CrashStorageBase, tmp_path: Path) -> None:
    method = getattr(StorageConformance(), case)
    wanted = inspect.signature(method).parameters
    arguments = {
        "storage": storage,
        "source": storage,
        "put": storage.save_crash,
        "destination": storage,
        "held": partial(held_by, storage),
        "tmp_path": tmp_path,
    }
    method(**{name: arguments[name] for name in wanted})


def test_every_promise_has_a_store_that_breaks_it() -> None:
    assert sorted(BREAKS) == sorted(all_cases())


@pytest.mark.parametrize("case", BREAKS)
def test_a_broken_store_fails(case: str, tmp_path: Path) -> None:
    with pytest.raises((Exception, pytest.fail.Exception)):
        run_case(case, BREAKS[case](tmp_path / "store"), tmp_path)


@pytest.mark.parametrize("case", BREAKS)
def test_the_store_that_is_not_broken_passes_the_same_way(case: str, tmp_path: Path) -> None:
    run_case(case, FSPermanentStorage(tmp_path / "store"), tmp_path)
