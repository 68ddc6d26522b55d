# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Benchmarks: ratios against others at the same work, on the same server, in one run.

All that is compared moves the same bytes in turns, each time into a new place, and what has
arrived is looked at afterwards, outside of what is timed.  `command` has the list of them;
`contest` is how one is held, `measure` what a run took, `report` how it is held against the
goals.
"""
