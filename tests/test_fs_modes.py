# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The modes of files and directories, while eight threads save with eight umasks."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.testing import contents, crash_of
from tests.cli_helpers import make_id
from tests.conftest import Figures

UMASKS = (0o000, 0o002, 0o007, 0o022, 0o026, 0o027, 0o070, 0o077)
ALONE, TOGETHER = 3, 9  # crashes; so many at once are made durable in another way
CRASHES = [
    crash_of(contents(), make_id(n, leaf=f"0b{n % 3:02x}", depth="0124"[n % 4]))
    for n in range(ALONE + TOGETHER)
]


@pytest.fixture(params=[0o000, 0o077])
def umask_of_the_process(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    try:
        yield request.param
    finally:
        os.umask(before)


def test_every_mode_is_the_one_of_its_store_while_eight_threads_save(
    tmp_path: Path, umask_of_the_process: int, figures: Figures
) -> None:
    together = Barrier(len(UMASKS), timeout=30)

    def save(umask: int) -> list[Exception | None]:
        with FSPermanentStorage(tmp_path / f"{umask:03o}" / "store", umask) as storage:
            together.wait()
            for crash in CRASHES[:ALONE]:
                storage.save_crash(crash)
            return storage.save_crashes(CRASHES[ALONE:])

    with ThreadPoolExecutor(len(UMASKS)) as pool:
        assert list(pool.map(save, UMASKS)) == [[None] * TOGETHER] * len(UMASKS)
    seen: Counter[str] = Counter()
    for umask in UMASKS:
        root = tmp_path / f"{umask:03o}"
        for path in (root, *root.rglob("*")):
            is_directory = path.is_dir()
            expected = (0o777 if is_directory else 0o666) & ~umask
            assert stat.S_IMODE(path.stat().st_mode) == expected, path
            seen["directories" if is_directory else "files"] += 1
    assert seen["files"] == len(UMASKS) * len(CRASHES) * len(contents())
    assert os.umask(umask_of_the_process) == umask_of_the_process
    figures(**seen)
