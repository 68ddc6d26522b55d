# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The links that the collectors of 2013 to 2017 left beside a crash.

Such a link is named by the crash id and lies where the older layout has the crash's own directory.
Its target is the directory of the minute in which the crash came: ``../../../date/01/37_10``.
Source of the rule: Mozilla Socorro, ``FSLegacyDatedRadixTreeStorage``.
"""

import errno
import os
import re
from contextlib import suppress

from crashmover.external.fs import durable
from crashmover.external.fs.durable import opened
from crashmover.external.fs.layouts import Where

_TARGET = re.compile(r"(\.\./)+[^./][^/]*/[0-9]{2}/[0-9]{2}_[0-9]+/?", re.ASCII)


def is_collectors_link(dir_fd: int, name: str) -> bool:
    """Return True if `name` in an open directory is such a link; no link is followed."""
    with suppress(OSError):
        return _TARGET.fullmatch(os.readlink(name, dir_fd=dir_fd)) is not None
    return False


def open_directory(root_fd: int, where: Where) -> int:
    """Open the directory that is `where` below the root.

    :raises FileNotFoundError: it is missing, or such a link is in its place
    """
    try:
        return durable.walk_down(root_fd, where)
    except OSError as error:
        if error.errno == errno.ELOOP and _is_in_place_of(root_fd, where):
            raise FileNotFoundError(errno.ENOENT, "a collector's link") from None
        raise


def _is_in_place_of(root_fd: int, where: Where) -> bool:
    with suppress(OSError), opened(durable.walk_down(root_fd, where[:-1])) as dir_fd:
        return is_collectors_link(dir_fd, where[-1])
    return False
