# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Places: what a URI, or a name from the configuration, stands for."""

from dataclasses import dataclass

from crashmover.config import Config
from crashmover.errors import CrashMoverError, InvalidConfig, masked
from crashmover.external.crashqueue_base import CrashQueueBase
from crashmover.external.roles import Store
from crashmover.registry import open_queue, open_store
from crashmover.uri import StorageURI

KINDS = {"storage": "store", "queue": "queue"}
"""What a section of the configuration file has names of."""


@dataclass(frozen=True)
class Place:
    """A store or a queue, which is not contacted yet; or what is wrong with its name or URI.

    :param kind: of `KINDS`
    :param name: in the configuration, if it comes from there
    :param shown: the URI as it was written, without its secrets
    :param opened: None where there is an error
    """

    kind: str
    name: str
    shown: str
    opened: Store | CrashQueueBase | None = None
    error: CrashMoverError | None = None

    @property
    def uri(self) -> str:
        """What messages call it."""
        return self.opened.uri if self.opened else self.shown


def place_at(section: str, uri: str, name: str = "") -> Place:
    """Return what is at a URI."""
    try:
        opened = open_queue(uri) if section == "queue" else open_store(uri)
        return Place(KINDS[section], name, str(StorageURI.parse(uri)), opened)
    except CrashMoverError as error:
        return Place(KINDS[section], name, masked(uri), error=error)


def places_of(config: Config, section: str, name: str) -> list[Place]:
    """Return all that a name stands for in the end."""
    try:
        uris = [config.queue_uri(name)] if section == "queue" else config.stores(name)
    except InvalidConfig as error:
        return [Place(KINDS[section], name, "", error=error)]
    return [place_at(section, uri, name) for uri in uris]
