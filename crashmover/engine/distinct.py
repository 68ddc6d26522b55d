# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Proves that source and destination are two stores, before a copy removes anything.

A store that is moved onto itself loses every crash: each is found in the destination, identical,
and then removed from the source.  One store has many names (hosts, ports, links, mounts), so the
stores themselves are asked: `Store.is_same_store`.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import product

from crashmover.errors import NotTwoStores, StorageError
from crashmover.external.roles import Store
from crashmover.retry import RetryPolicy

logger = logging.getLogger(__name__)

SAME = "source and destination are the same store"


def require_two_stores(
    source: Store,
    destinations: Sequence[Store],
    *,
    dry_run: bool,
    retry: RetryPolicy,
) -> None:
    """Prove that no destination is the source, for a copy that removes from the source.

    :param dry_run: write no marks; log a warning where the proof would need one
    :raises NotTwoStores: one is the same store, or that cannot be proved
    :raises StorageError: a store cannot be asked
    """
    for one, other in product(source.stores, destinations):
        answer, why = retry.call(partial(_ask, one, other, probe=not dry_run))
        if answer:
            raise NotTwoStores(f"{SAME}: {one.uri} is {other.uri}")
        if answer is None and dry_run and not why:
            logger.warning(
                "--dry-run writes nothing, so it is not proved that %s and %s are two stores;"
                " a run that removes proves it first, or refuses",
                one.uri,
                other.uri,
            )
        elif answer is None:
            raise NotTwoStores(
                f"it cannot be proved that {one.uri} and {other.uri} are two stores:"
                f" {why or 'they do not say why'}; nothing was copied or removed; copy without"
                " --remove-source, and remove the crashes when you are sure"
            )


def refuse_same_stores(source: Store, destinations: Sequence[Store]) -> None:
    """Refuse to copy between stores that are known to be the same; nothing is written.

    Where some of the stores are others, there is something to copy.  A store that does not answer
    is left to the copy.

    :raises NotTwoStores: each source is a destination, and each destination a source
    """
    pairs = list(_same_pairs(source.stores, destinations))
    sources, places = {one for one, _ in pairs}, {other for _, other in pairs}
    if pairs and len(sources) == len(source.stores) and len(places) == len(destinations):
        one, other = pairs[0]
        raise NotTwoStores(f"{SAME}: {source.stores[one].uri} is {destinations[other].uri}")


def refuse_check_of_itself(source: Store, destinations: Sequence[Store]) -> None:
    """Refuse to check a destination that is known to be the only source; nothing is written.

    :raises NotTwoStores: one is
    """
    if len(source.stores) == 1:
        for one, other in _same_pairs(source.stores, destinations):
            raise NotTwoStores(
                f"{SAME}: {source.stores[one].uri} is {destinations[other].uri};"
                " use --digest to find out whether a store is sound in itself"
            )


def _same_pairs(
    sources: Sequence[Store], destinations: Sequence[Store]
) -> Iterator[tuple[int, int]]:
    """Yield the places of each source and destination that are known to be the same."""
    for (i, one), (j, other) in product(enumerate(sources), enumerate(destinations)):
        with suppress(StorageError):
            if _ask(one, other, probe=False)[0]:
                yield i, j


def _ask(one: Store, other: Store, *, probe: bool) -> tuple[bool | None, str]:
    """Return whether two are the same store, and why that is not known, if they say."""
    if one is other:
        return True, ""
    # A class derived from the other's knows both; else the source's class is asked first.
    is_derived = type(other) is not type(one) and isinstance(other, type(one))
    asked = (other, one) if is_derived else (one, other)
    for store, another in (asked, asked[::-1]):
        try:
            answer = store.is_same_store(another, probe=probe)
        except NotTwoStores as reason:
            return None, str(reason)
        if answer is not None:
            return answer, ""
    owners = [_owner(one), _owner(other)]
    for owner, store in zip(owners, (one, other), strict=True):
        if owner is Store:
            return None, f"the class {type(store).__name__} has no method is_same_store()"
    are_related = issubclass(owners[0], owners[1]) or issubclass(owners[1], owners[0])
    return (None, "") if are_related else (False, "")


def _owner(store: Store) -> type:
    """Return the class whose `is_same_store` the store has."""
    return next(each for each in type(store).__mro__ if "is_same_store" in vars(each))
