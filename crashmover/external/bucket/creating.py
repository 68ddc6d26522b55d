# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Create: the order in which the objects of a crash are put where there is none."""

from crashmover.crash import Crash
from crashmover.errors import CrashExists, StorageUnavailable
from crashmover.external.bucket import layouts as keys
from crashmover.external.bucket.claims import Claims
from crashmover.external.bucket.crashobjects import CrashObjects, RawCrash, is_of
from crashmover.external.bucket.obstore_client import SAVE, SHA256
from crashmover.external.bucket.writing import Save
from crashmover.external.s3.s3errors import AlreadyThere

_UNFINISHED = (
    "another save of it goes on, or was stopped half-way: --existing overwrite replaces that"
)


class Create:
    """Saves crashes, replacing no raw crash and no dump, one at a time for each crash id.

    Who has claimed a crash has the turn.  Nobody can tell whether he still lives: what a save of
    the same crash has left is completed, and what this process itself has left is replaced; that
    of another crash stays until somebody replaces it.  Dumps, too, are put on the condition that
    there are none: so who has lost the turn without knowing writes over nobody's.

    Where the server understands no conditions, two may have the turn.  Who finds that another has
    claimed the crash after him does not leave before all of one crash is there, and nothing of
    his among it: not even if what he did has failed, and is tried again.
    """

    def __init__(self, objects: CrashObjects, claims: Claims, save: Save) -> None:
        self._objects = objects
        self._claims = claims
        self._save = save
        self._begun: dict[str, str | None] = {}  # what this process has claimed, not finished

    def __call__(self, crash: Crash) -> None:
        """Save the parts that there are.

        :raises CrashExists: the raw crash is there, or one of the dumps that are to be added
        """
        if crash.raw_crash:
            self._create(crash, RawCrash(crash.raw_crash))
        elif crash.dumps:
            self._add_dumps(crash)
        else:
            self._objects.put_processed(crash)

    def _create(self, crash: Crash, raw: RawCrash) -> None:
        try:
            if self._may_lie_among_others(crash, raw):
                self._save.settle(crash, raw)
            else:
                self._put_all(crash, raw)
        except CrashExists:
            self._begun.pop(crash.crash_id, None)
            raise
        self._begun.pop(crash.crash_id, None)

    def _put_all(self, crash: Crash, raw: RawCrash) -> None:
        crash_id = crash.crash_id
        is_new = self._claim(crash, raw)
        if not is_new and not self._take_over(crash, raw):
            self._save.settle(crash, raw)
            return
        try:
            raw.put_with_it |= self._put_dumps(crash, raw.sha256)
        except StorageUnavailable:
            is_alone = is_new and self._claims.are_respected  # there was no other list
            if is_alone and self._withdraw(crash_id, raw):
                raise self._objects.exists(crash_id) from None
            raise
        self._objects.put_processed(crash)
        create = bool(self._claims.are_respected)
        if not self._objects.put_raw_crash(raw, crash_id, create=create):
            if is_new:
                self._withdraw(crash_id, raw)
            raise self._objects.exists(crash_id)
        self._make_sure(crash, raw, is_new)

    def _claim(self, crash: Crash, raw: RawCrash) -> bool:
        """Claim the crash, if nobody has; return whether nobody had."""
        crash_id = crash.crash_id
        if self._claims.is_claimed(crash_id):
            return False
        self._expect_others(crash_id, raw)
        is_new = self._claims.claim(crash, raw)
        if is_new:
            self._begun[crash_id] = raw.save
        return is_new

    def _expect_others(self, crash_id: str, raw: RawCrash) -> None:
        """Remember, before anything is put, that it may come to lie among another crash: even if
        what puts it fails, for it may have been put."""
        if not self._claims.are_respected:
            self._begun[crash_id] = raw.save

    def _may_lie_among_others(self, crash: Crash, raw: RawCrash) -> bool:
        """Whether this process has begun the crash already, and nothing has kept it from it."""
        crash_id, claims = crash.crash_id, self._claims
        if crash_id not in self._begun:
            return False
        if claims.are_respected is None and self._objects.list_of_dumps(crash_id):
            claims.learn({part.name for part in crash.dumps}, crash_id, raw.sha256, raw.save)
        return claims.are_respected is False

    def _make_sure(self, crash: Crash, raw: RawCrash, is_new: bool) -> None:
        """See to it that all of it is ours: somebody else may have put something meanwhile."""
        if is_new or not self._claims.are_respected:
            if not self._claims.is_held(crash, raw):
                self._save.settle(crash, raw)
        elif not self._objects.is_whole(crash, raw):
            if self._objects.list_of_dumps(crash.crash_id):
                raise self._objects.busy(crash.crash_id)  # who replaces it finds us in the way
            self._save.replace(crash, raw)  # what it was to go on from was being removed

    def _take_over(self, crash: Crash, raw: RawCrash) -> bool:
        """Go on where a save of the same crash was stopped, if it was; return False where it was
        of another, but ours.

        :raises CrashExists: it was not: all is there
        :raises StorageUnavailable: it may still go on
        """
        crash_id = crash.crash_id
        if self._objects.raw_crash(crash_id):
            raise self._objects.exists(crash_id)
        claim = self._objects.list_of_dumps(crash_id)
        if claim is None:  # it is being removed
            raise self._objects.busy(crash_id)
        names, listed = {part.name for part in crash.dumps}, self._objects.dump_names(crash_id)
        if names != listed or not is_of(claim, raw.sha256):
            if crash_id in self._begun and claim.metadata.get(SAVE) == self._begun[crash_id]:
                return False
            raise self._objects.busy(crash_id, _UNFINISHED)
        self._expect_others(crash_id, raw)
        self._claims.take_over(crash, raw, claim)
        return True

    def _withdraw(self, crash_id: str, raw: RawCrash) -> bool:
        """Take our list of dumps from beside another program's raw crash, which had none; return
        True if that is so.  Its dumps are found without a list, and hidden by ours."""
        there, claim = self._objects.raw_crash(crash_id), self._objects.list_of_dumps(crash_id)
        is_ours = claim and is_of(claim, raw.sha256)
        if there and there.metadata.get(SHA256) != raw.sha256 and is_ours:
            self._objects.delete_list(crash_id)
            return True
        return False

    def _add_dumps(self, crash: Crash) -> None:
        raw = self._objects.raw_crash_for_dumps(crash.crash_id)
        found = self._objects.listed_dumps(crash.crash_id)
        listed = self._objects.unlisted_dumps(raw, crash.crash_id) if found is None else found
        if {part.name for part in crash.dumps} & listed:
            raise self._objects.exists(crash.crash_id)
        sha256 = raw.sha256_of_dumps
        if found is None:
            self._objects.put_list(listed, crash.crash_id, sha256)
        self._claims.learn(listed, crash.crash_id, sha256)
        self._objects.put_processed(crash)
        self._put_dumps(crash, sha256, added=True)
        self._objects.add_to_list(crash.dumps, crash.crash_id, raw)

    def _put_dumps(
        self, crash: Crash, sha256: str | None, *, added: bool = False
    ) -> dict[str, str | None]:
        """Put the dumps; return, by their keys, their SHA-256, where it is known."""
        create = bool(self._claims.are_respected)
        put: dict[str, str | None] = {}
        for dump in crash.dumps:
            key = keys.dump_key(crash.crash_id, dump.name)
            try:
                put[key] = self._objects.put_dump(
                    dump, crash.crash_id, sha256, create=create, added=added
                )
            except AlreadyThere:
                there = self._objects.dump(crash.crash_id, dump.name)
                is_ours = there and is_of(there, sha256)
                if not there or not is_ours or not self._objects.has(dump, crash.crash_id):
                    raise self._objects.busy(crash.crash_id, _UNFINISHED) from None
                put[key] = there.metadata.get(SHA256)
        return put
