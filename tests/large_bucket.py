# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.


"""A bucket of many crashes that is nowhere: ``python -m tests.large_bucket COUNT`` adds up the
sizes that it lists, and prints how many crashes, bytes and pages there were."""

import sys
from collections.abc import Iterator
from itertools import count, islice
from threading import Lock

from crashmover.external.bucket.client import Listed, Pages
from tests.bucket_in_memory import Bucket, open_bucket

DAYS = 10
SIZES = {"raw_crash": 700, "dump_names": 24, "dump": 200_000, "processed_crash": 30_000}
_PAGE = 1000


class LargeBucket(Bucket):
    """Crashes whose ids are spread evenly, in turns of `DAYS` days.  It makes up what it lists.

    :param count: of its crashes
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.pages = 0
        self._step = (1 << 128) // count
        self._pages_lock = Lock()

    def _id(self, number: int) -> str:
        digits = f"{number * self._step:032x}"
        steps = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:26])
        return f"{'-'.join(steps)}0710{20 + number % DAYS}"

    def list_objects(self, prefix: str, after: str = "", *, surely: bool = True) -> Pages:
        found = self._listed(prefix, after)
        while page := list(islice(found, _PAGE)):
            with self._pages_lock:
                self.pages += 1
            yield page

    def _listed(self, prefix: str, after: str) -> Iterator[Listed]:
        _, kind, day = f"{prefix}/".split("/")[:3]
        if kind not in SIZES or (kind == "raw_crash") != bool(day):
            return
        start = after.rpartition("/")[2].replace("-", "")
        first = int(f"{start[:26]:0<32}", 16) // self._step - DAYS
        first = max(0, first - first % DAYS)
        for number in count(first + int(day[-2:] or 0) % DAYS, DAYS if day else 1):
            if number >= self.count:
                return
            if (key := f"{prefix}/{self._id(number)}") > after:
                yield key, SIZES[kind], ""

    def list_directory(self, prefix: str) -> tuple[list[str], list[str]]:
        days = [f"200710{20 + day}" for day in range(DAYS)]
        return {"v1": [*SIZES], "v1/raw_crash": days}.get(prefix, []), []


def main(crashes: int) -> None:
    bucket = LargeBucket(crashes)
    found = bytes_in_all = 0
    for _, size in open_bucket(bucket).crash_sizes():
        assert isinstance(size, int)
        found, bytes_in_all = found + 1, bytes_in_all + size
    sys.stdout.write(f"{found} {bytes_in_all} {bucket.pages}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
