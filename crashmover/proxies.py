# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Proxies: which one a client takes for a URL, so that a message can name it.

The rules are those of curl, in the form that the ``hyper-util`` crate gives them (its
``client::proxy::matcher``), as obstore takes its proxies from there.
"""

import ipaddress
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080}
_PORTS |= {"socks5h": 1080}
_ALL = ("ALL_PROXY", "all_proxy")
_EXCEPTIONS = ("NO_PROXY", "no_proxy")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the variable of the environment that names it.

    :param variable: as it is spelled in the environment
    :param address: ``host:port``, without a user and password
    :param url: as the variable has it, with the password: never show it
    """

    variable: str
    address: str
    url: str = field(repr=False)

    def __str__(self) -> str:
        return f"the proxy {self.address} of {self.variable}"


def proxy_for(
    url: str,
    environment: Mapping[str, str] = os.environ,
    *,
    variables: Sequence[str] | None = None,
    exceptions: Sequence[str] = _EXCEPTIONS,
) -> Proxy | None:
    """Return the proxy that requests to a URL go through; None where they go straight.

    Of the two spellings of a variable the first one that is set counts, even if it is empty.

    :param url: with scheme and host
    :param variables: that may name the proxy, instead of ``HTTPS_PROXY`` and ``https_proxy``,
        or ``HTTP_PROXY`` and ``http_proxy``, by the scheme of the URL
    :param exceptions: that may list the hosts to be asked without a proxy
    """
    target = urlsplit(url)
    if "REQUEST_METHOD" in environment:  # in a CGI program a request's header sets HTTP_PROXY
        return None
    _, listed = _first(environment, exceptions)
    if _is_excepted(target.hostname or "", listed):
        return None
    own = variables or (f"{target.scheme.upper()}_PROXY", f"{target.scheme}_proxy")
    return _named(environment, own) or _named(environment, _ALL)


def with_proxy(reason: str, proxy: Proxy | None) -> str:
    """Return the reason of a failure, and which proxy it came through."""
    return f"{reason} (through {proxy})" if proxy else reason


def _first(environment: Mapping[str, str], names: Sequence[str]) -> tuple[str, str]:
    return next(((name, environment[name]) for name in names if name in environment), ("", ""))


def _named(environment: Mapping[str, str], names: Sequence[str]) -> Proxy | None:
    variable, value = _first(environment, names)
    with suppress(ValueError):
        parts = urlsplit(value if "://" in value else f"http://{value}")
        if parts.hostname and parts.scheme in _PORTS:
            port = parts.port or _PORTS[parts.scheme]
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            return Proxy(variable, f"{host}:{port}", parts.geturl())
    return None  # clients pass over a value that they cannot read


def _is_excepted(host: str, listed: str) -> bool:
    entries = [entry.strip() for entry in listed.split(",")]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return any(_is_of_domain(host, entry.lower()) for entry in entries if entry)
    return any(_is_in_network(address, entry) for entry in entries)


def _is_of_domain(host: str, entry: str) -> bool:
    return entry == "*" or f".{host}".endswith("." + entry.removeprefix("."))


def _is_in_network(address: ipaddress.IPv4Address | ipaddress.IPv6Address, entry: str) -> bool:
    """Whether an address is an entry, or in its network, as in 10.0.0.0/8; ``*`` matches none."""
    with suppress(ValueError):
        return address in ipaddress.ip_network(entry, strict=False)
    return False
