# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Standard streams that are closed: a daemon or a script may start a command without them.

Python sets ``sys.stdout`` to None then, and the next file that is opened gets its descriptor: what
is printed to descriptor 1 would land in a file of a store.
"""

import os
import sys

OUTPUT_LOST = "standard output is closed: send the result to a file, a pipe or /dev/null"

_STREAMS = (
    (0, "stdin", "standard input"),
    (1, "stdout", "standard output"),
    (2, "stderr", "standard error"),
)

_closed: set[int] = set()


def open_closed() -> None:
    """Open /dev/null in the place of each standard stream that is closed.

    Only a program calls this, before it opens any file: a library leaves its host's streams alone.
    """
    for number, attribute, _ in _STREAMS:
        if _is_open(number):
            continue
        # The lowest free descriptor is this one, as all below it are open.
        os.open(os.devnull, os.O_RDWR)
        os.set_inheritable(number, True)  # as a child process expects of its streams
        file = open(number, "w" if number else "r", encoding="utf-8", closefd=False)
        setattr(sys, attribute, file)
        setattr(sys, f"__{attribute}__", file)
        _closed.add(number)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def is_output_closed() -> bool:
    """Return True if standard output was closed when the program started."""
    return 1 in _closed


def closed_name(path: str) -> str | None:
    """Return what is closed, such as ``standard output``, if the path of a file means that.

    :param path: as the user typed it: ``/dev/stdout`` leads to /dev/null now
    """
    for number, attribute, name in _STREAMS:
        paths = (f"/dev/{attribute}", f"/dev/fd/{number}", f"/proc/self/fd/{number}")
        if number in _closed and path in paths:
            return name
    return None
