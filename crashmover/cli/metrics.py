# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The figures of a run, for a statsd server: one datagram, for which no library is needed."""

import logging
import re
from collections.abc import Mapping

import click

logger = logging.getLogger(__name__)

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", re.ASCII)


def to_address(text: str) -> tuple[str, int]:
    """Return the host and port of ``HOST:PORT``, also of ``[::1]:8125``."""
    match = _ADDRESS.fullmatch(text)
    if not match or not 0 < int(match[3]) < 65536:
        raise click.BadParameter(f"{text!r} is no address: write HOST:PORT")
    return match[1] or match[2], int(match[3])


def send(where: tuple[str, int], figures: Mapping[str, float]) -> None:
    """Send these: the seconds as a timer, anything else as a counter.  Where they cannot be sent,
    that is a warning, and never a failure of the run."""
    import socket

    lines = [f"crashmover.{name}:{n}|c" for name, n in figures.items() if name != "seconds"]
    lines.append(f"crashmover.duration:{round(figures['seconds'] * 1000)}|ms")
    try:
        found = socket.getaddrinfo(*where, type=socket.SOCK_DGRAM)
        # Servers listen for IPv4, and "localhost" is both.
        family, kind, protocol, _, found_at = min(found, key=lambda each: each[0] != socket.AF_INET)
        with socket.socket(family, kind, protocol) as connection:
            connection.sendto("\n".join(lines).encode(), found_at)
    except (OSError, UnicodeError) as error:  # the latter: no name that a host can have
        host, port = where
        reason = getattr(error, "strerror", None) or "no host has such a name"
        logger.warning("no metrics were sent to %s:%d: %s", host, port, reason)
