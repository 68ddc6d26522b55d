# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Claims: of those who save a crash that is new, one has the turn."""

from collections.abc import Callable

from crashmover.crash import Crash
from crashmover.errors import StorageDenied, StorageError, StorageUnavailable
from crashmover.external.bucket.crashobjects import CrashObjects, RawCrash
from crashmover.external.bucket.listing import Absences
from crashmover.external.bucket.obstore_client import SAVE, StoredObject
from crashmover.external.s3.s3errors import AlreadyThere


class Claims:
    """Who puts the list of dumps, on the condition that there is none (``If-None-Match``), has
    claimed the crash: one that is new costs no request more than it has objects, and one that is
    there already is noticed before anything of it is touched.

    :param is_aws: tells whether the server is Amazon's own, which understands conditions
    :param absences: what listings have just found not to be there: a server that does not
        understand conditions is not asked for it once more
    """

    def __init__(
        self, objects: CrashObjects, is_aws: Callable[[], bool], absences: Absences
    ) -> None:
        self._objects = objects
        self._is_aws = is_aws
        self._absences = absences
        self._are_respected: bool | None = None

    @property
    def are_respected(self) -> bool | None:
        """Whether the server understands conditions; None where that is not known yet."""
        if self._are_respected is None and self._is_aws():
            self._are_respected = True
        return self._are_respected

    def is_claimed(self, crash_id: str) -> bool:
        """Whether somebody has claimed the crash, where `claim` itself may not notice."""
        if self.are_respected or self._absences.take(crash_id):
            return False
        return self._objects.list_of_dumps(crash_id) is not None

    def claim(self, crash: Crash, raw: RawCrash) -> bool:
        """Put the list of dumps where there is none; return whether there was none, as far as the
        server notices."""
        is_new = self._put(_names(crash), crash.crash_id, raw.sha256, raw.save)
        self.learn(_names(crash), crash.crash_id, raw.sha256, raw.save)
        return is_new

    def take_over(self, crash: Crash, raw: RawCrash, claim: StoredObject) -> None:
        """Go on with what another save of the same crash has claimed, which was stopped.

        Perhaps it was not: where conditions keep it from nothing, it has to notice.
        """
        self.learn(_names(crash), crash.crash_id, raw.sha256, raw.save)
        if self.are_respected:
            raw.save = claim.metadata.get(SAVE)
        else:
            self._put(_names(crash), crash.crash_id, raw.sha256, raw.save)

    def is_held(self, crash: Crash, raw: RawCrash) -> bool:
        """Whether nobody else has claimed the crash since.  Of two who find it unclaimed and do so
        at the same moment, which only conditions prevent, the first notices by this."""
        return bool(self.are_respected) or self._objects.is_held(crash.crash_id, raw)

    def learn(
        self, names: set[str], crash_id: str, sha256: str | None, save: str | None = None
    ) -> None:
        """Find out whether the server understands conditions, by putting a list of dumps that is
        there once more: if it does, it refuses."""
        if self.are_respected is None and self._put(names, crash_id, sha256, save):
            self._are_respected = False

    def _put(
        self, names: set[str], crash_id: str, sha256: str | None, save: str | None = None
    ) -> bool:
        """Put a list of dumps, if there is none, as far as the server knows what that means."""
        create = self.are_respected is not False
        try:
            self._objects.put_list(names, crash_id, sha256, save=save, create=create)
        except AlreadyThere:
            self._are_respected = True
            return False
        except (StorageDenied, StorageUnavailable):
            raise
        except StorageError:  # 501 Not Implemented, or whatever it says to what it does not know
            if self.are_respected is not None:
                raise
            self._are_respected = False
            return self._put(names, crash_id, sha256, save)
        return True


def _names(crash: Crash) -> set[str]:
    return {part.name for part in crash.dumps}
