# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""StorageURI: where a store or a queue is, parsed and safe to show.

::

    fs:///var/crashes?umask=027      ./crashes and /var/crashes mean fs too
    s3://bucket/prefix?region=us-west-2
    gs://bucket/prefix?billing_project=mine
    postgresql://user@host:5432/db?schema=crashes
    memory:
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from crashmover.errors import InvalidURI

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,5}(\.[0-9]{1,3})?", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,4}", re.ASCII)
_DOMAIN = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", re.ASCII)
_ENDPOINT = re.compile(r"https?://[^\s/@?#]+(/[^\s@?#]*)?")
_SECRET = re.compile(r"password|passwd|secret|token|passphrase|credential|signature|key$", re.I)


@dataclass(frozen=True)
class StorageURI:
    """A URI in its pieces.  Only `password` and the values of `query` can be secret, and
    neither its text nor its `repr` shows them."""

    scheme: str
    host: str = ""
    path: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    port: int | None = None
    query: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> "StorageURI":
        """Parse a URI, or the path of a directory: one with a slash, or ``.`` or ``..``.

        :raises InvalidURI: it is neither; the message does not repeat it
        """
        if not text or any(not char.isprintable() for char in text):
            raise InvalidURI("a store's URI is empty or has control characters in it")
        _refuse_tilde(text)
        if text in (".", "..") or text.startswith(("/", "./", "../")):
            return cls._parse_path(text)
        scheme, colon, rest = text.partition(":")
        if colon and _SCHEME.fullmatch(scheme):
            return cls._parse_rest(scheme.lower(), rest)  # RFC 3986, 3.1: in any case
        path = text.partition("?")[0]
        if "/" not in path:
            raise InvalidURI("neither a URI (such as fs:///var/crashes) nor a path with a slash")
        if ":" in text or "@" in text:
            # As likely a URI without its scheme, or a piece of one with a password in it.
            raise InvalidURI("neither a URI nor a path; write ./ before a path with : or @ in it")
        return cls._parse_path(text)

    @classmethod
    def _parse_path(cls, text: str) -> "StorageURI":
        path, _, query = text.partition("?")
        return cls("fs", path=path, query=_query(query))

    @classmethod
    def _parse_rest(cls, scheme: str, rest: str) -> "StorageURI":
        try:
            split = urlsplit(f"x:{rest}")
            # Several hosts, as PostgreSQL has them, each with its port: `host` holds all of it.
            port = None if "," in unquote(_host_and_port(split.netloc)) else split.port
        except ValueError:
            # The parser's own message repeats the text, and with it a password.
            raise InvalidURI(f"malformed {scheme} URI: its host or port is not one") from None
        if split.fragment:
            raise InvalidURI(f"malformed {scheme} URI: write # as %23")
        if "@" in split.path + split.query and scheme != "fs":
            # A password with a / or ? in it ends the host early: the rest of it is here.
            raise InvalidURI(
                f"malformed {scheme} URI: write / ? and @ in a password as %2F %3F %40"
            )
        uri = cls(
            scheme,
            host=unquote(_host(split.netloc)),
            path=unquote(split.path),
            user=unquote(split.username or ""),
            password=unquote(split.password or ""),
            port=port,
            query=_query(split.query),
        )
        if not (uri.host + uri.path + uri.user).isprintable():
            raise InvalidURI(f"malformed {scheme} URI: it has control characters in it")
        _refuse_tilde(uri.path)
        return uri

    def options(self, **converters: Callable[[str], Any]) -> dict[str, Any]:
        """Return the query as keyword arguments, each passed through its converter.

        :raises InvalidURI: a key has no converter, or its converter raised `ValueError`
        """
        options = {}
        for key, value in self.query.items():
            if key not in converters:
                known = ", ".join(sorted(converters)) or "none"
                raise InvalidURI(
                    f"{self.scheme}: unknown option {quote(key)[:40]!r}; there are: {known}"
                )
            try:
                options[key] = converters[key](value)
            except ValueError as error:
                raise InvalidURI(f"{self.scheme}: option {key}: {error}") from None
        return options

    def refuse(self, *names: str) -> None:
        """Raise `InvalidURI` where any of these pieces is given: this scheme has none."""
        for name in names:
            if getattr(self, name):
                raise InvalidURI(f"{self.scheme}: a {self.scheme} URI has no {name}")

    def __str__(self) -> str:
        """The URI with every secret masked."""
        user = quote(self.user, safe="") + (":***" if self.password else "")
        netloc = f"{user}@" if user else ""
        netloc += _quote_host(self.host) + (f":{self.port}" if self.port is not None else "")
        authority = f"//{netloc}" if netloc or self.path.startswith("/") else ""
        masked = (
            f"{quote(key)}={'***' if _SECRET.search(key) else _quote_value(value)}"
            for key, value in self.query.items()
        )
        query = "&".join(masked)
        return f"{self.scheme}:{authority}{quote(self.path)}" + (query and f"?{query}")


def refuse_tilde(text: str) -> str:
    """Return the path of a file; also a converter of an option that is one.

    :raises ValueError: it begins with a tilde, which nothing but a shell expands: taken as it
        is, it would be a directory of that name in the working directory
    """
    if text == "~" or (text.startswith("~") and "/" in text):
        raise ValueError("~ is not expanded here; write the full path")
    return text


def _refuse_tilde(path: str) -> None:
    try:
        refuse_tilde(path)
    except ValueError as error:
        raise InvalidURI(str(error)) from None


def seconds(text: str) -> float:
    """Convert an option that is a length of time.

    :raises ValueError: it is not a number of seconds, or none at all
    """
    if not _SECONDS.fullmatch(text) or not float(text):
        raise ValueError("it is a number of seconds, such as 30 or 0.5")
    return float(text)


def count(text: str) -> int:
    """Convert an option that is a number of things, 0 to 9999.

    :raises ValueError: it is not such a number
    """
    if not _COUNT.fullmatch(text):
        raise ValueError("it is a number, such as 20; 0 means without an end")
    return int(text)


def boolean(text: str) -> bool:
    """Convert an option that is true or false."""
    if text.lower() not in ("true", "false"):
        raise ValueError("it is true or false")
    return text.lower() == "true"


def word(text: str) -> str:
    """Convert an option that is any text."""
    if not text.isprintable() or not text:
        raise ValueError("it is empty or has control characters in it")
    return text


def one_of(*values: str) -> Callable[[str], str]:
    """Return what converts an option that is one of these."""

    def convert(text: str) -> str:
        if text not in values:
            raise ValueError(f"it is one of {', '.join(values)}")
        return text

    return convert


def domain(text: str) -> str:
    """Convert an option that is the name of a domain."""
    if not _DOMAIN.fullmatch(text):
        raise ValueError("it is a domain, such as googleapis.com")
    return text


def endpoint(text: str) -> str:
    """Convert an option that is the URL of a server.  One with a user and password in it would be
    in what a client says of every failure."""
    with suppress(ValueError):  # of a port or an address that is none
        if _ENDPOINT.fullmatch(text) and urlsplit(text).port != 0 and urlsplit(text).hostname:
            return text
    raise ValueError("it is a URL such as https://127.0.0.1:9000, without a user")


def _host(netloc: str) -> str:
    """The host as written: `SplitResult.hostname` would fold a bucket's name to lower case."""
    host = _host_and_port(netloc)
    if "," in unquote(host):
        return host
    name, colon, port = host.rpartition(":")
    return name if colon and (port.isdigit() or not port) else host


def _host_and_port(netloc: str) -> str:
    return netloc.rpartition("@")[2]


def _quote_host(host: str) -> str:
    several = "," in host
    return host if host.startswith("[") else quote(host, safe=",:[]" if several else "")


def _quote_value(value: str) -> str:
    """A value that is itself a URI may hold a user and a password."""
    start, end = value.find("//"), value.rfind("@")
    masked = f"{value[:start]}//***@{value[end + 1 :]}" if 0 <= start < end else value
    return quote(masked, safe="/:,*")


def _query(text: str) -> dict[str, str]:
    if not text:
        return {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise InvalidURI("malformed URI: what follows ? must be key=value&key=value") from None
    query = dict(pairs)
    if len(query) != len(pairs):
        raise InvalidURI("malformed URI: an option is given twice")
    return query
