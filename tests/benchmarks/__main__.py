# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Runs the benchmarks: ``python -m tests.benchmarks --help``."""

import sys

from tests.benchmarks.command import main

if __name__ == "__main__":
    sys.exit(main())
