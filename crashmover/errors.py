# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Everything that crashmover raises on purpose.

::

    CrashMoverError
    ├─ InvalidCrashID, InvalidDumpName, InvalidURI, InvalidConfig    (also ValueError)
    ├─ MissingExtra
    ├─ NotTwoStores                    also ValueError
    ├─ WorkerKilled
    ├─ StorageError                    .crash_id, .uri (redacted), .reason
    │  ├─ CrashIDNotFound
    │  │  └─ DumpNotFound
    │  ├─ CrashExists
    │  ├─ CrashConflict
    │  ├─ CrashChanged
    │  ├─ CrashArchived
    │  ├─ CorruptCrash
    │  ├─ StorageDenied
    │  ├─ StorageUnavailable           retried
    │  └─ PolyCrashStorageError        also an ExceptionGroup
    └─ QueueError
       ├─ QueueUnavailable             retried
       └─ CrashIdsFailedToPublish      .crash_ids

The text of each is one line that a user can act on: where, which crash, what.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self, overload

_LOOKED_AT = 1000  # characters
_WORD = re.compile(r"[^\s'\"(]+")
_PASSWORD_BEGINS = re.compile(r".:(?!/)")


def _without_password(word: re.Match[str]) -> str:
    """Mask ``user:password@``, from where a user may begin to the last @: step by step, as a
    pattern for all of it takes seconds for a thousand colons."""
    text = word[0]
    last = text.rfind("@")
    start = 0
    while start <= last:
        end = text.index("@", start)
        if _PASSWORD_BEGINS.search(text, start, end + 1):
            return f"{text[:start]}***@{text[last + 1 :]}"
        start = end + 1
    return text


_END = r"(?=:?(?:[&\s'\")]|$))"  # of a value
_VALUE = rf"[^&\s'\")]*?{_END}"
_ENDPOINT = rf"endpoint_url=https?://[A-Za-z0-9.-]+(?::\d+)?/?{_END}"

_SECRETS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # scheme://user:password@, also as a path, which has fewer slashes; user:password@
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/{1,3})[^\n]*@"), r"\1***@"),
    (_WORD, _without_password),
    # scheme://user:password, cut short; it is no port
    (re.compile(r"(:/{1,3}[^\s/:'\"(]*:)(?!\d*:?(?:[/?&'\")\s]|$))[^\s'\")]*"), r"\1***"),
    # The value of an option, whatever it is called, but for an endpoint in plain characters: it
    # says which server is meant.  A colon before a blank belongs to the message around it.
    (re.compile(rf"([?&](?!{_ENDPOINT})[^=&\s'\"]*=){_VALUE}"), r"\1***"),
)


def masked(text: str) -> str:
    """Mask what may be a password in what a person typed: a URI, where none belongs.  Of what a
    stranger sent, only the beginning is looked at and returned: it may be long."""
    text = text if len(text) <= _LOOKED_AT else f"{text[:_LOOKED_AT]}…"
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


NO_THREAD = "no further thread can be started: the limit of processes is reached"
UNKNOWN_HOST = "its host is not known"
NO_TRUST = "no trusted TLS connection can be made"
NO_CERTIFICATES = "the system's certificates are missing, or SSL_CERT_FILE names another file:"
NO_CERTIFICATES += " install the package ca-certificates"


class CrashMoverError(Exception):
    """The root of all of them."""

    is_retryable: ClassVar[bool] = False
    """Whether trying again may help."""


def _shorten(text: object, most: int = 80) -> str:
    """Show what a stranger sent: quoted, escaped, and never at length."""
    shown = masked(repr(text))
    return shown if len(shown) <= most else f"{shown[:most]}…"


class InvalidCrashID(CrashMoverError, ValueError):
    """Not a crash id."""

    def __init__(self, crash_id: object, reason: str = "") -> None:
        super().__init__(f"not a crash id: {_shorten(crash_id)}" + (reason and f": {reason}"))
        self.reason = reason


class InvalidDumpName(CrashMoverError, ValueError):
    """Not a name that a dump may have."""

    def __init__(self, name: object, reason: str) -> None:
        super().__init__(f"not a dump name: {_shorten(name)}: {reason}")


class InvalidURI(CrashMoverError, ValueError):
    """Not the URI of a store or a queue.  Its text never repeats the URI: it may hold a secret."""


class InvalidConfig(CrashMoverError, ValueError):
    """The configuration file cannot be read or says something that is not understood."""

    def __init__(self, text: str) -> None:
        super().__init__(masked(text))


class MissingExtra(CrashMoverError):
    """A driver is not installed, and the text says what to install; or the package of a store is
    broken."""


class NotTwoStores(CrashMoverError, ValueError):
    """Source and destination are one store, or it cannot be proved that they are two."""


class WorkerKilled(CrashMoverError):
    """A worker process was killed in the middle of its work."""


class StorageError(CrashMoverError):
    """Something went wrong in a store.

    :param reason: what, without the store or the crash
    :param crash_id: the crash it was about, if it was about one
    :param uri: the store, already redacted
    """

    def __init__(self, reason: str, *, crash_id: str | None = None, uri: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.crash_id = crash_id
        self.uri = uri

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.uri, self.crash_id, self.reason)))

    def brief(self) -> str:
        """The text without the crash id, for where that is said already."""
        return ": ".join(filter(None, (self.uri, self.reason)))


class CrashIDNotFound(StorageError):
    """The store has no such crash."""

    def __init__(
        self, crash_id: str, *, uri: str | None = None, reason: str = "no such crash"
    ) -> None:
        super().__init__(reason, crash_id=crash_id, uri=uri)


class DumpNotFound(CrashIDNotFound):
    """The crash has no such dump."""


class CrashExists(StorageError):
    """The store has the crash, or the dump, and was not to replace one."""

    def __init__(
        self, crash_id: str, *, uri: str | None = None, reason: str = "it is there already"
    ) -> None:
        super().__init__(reason, crash_id=crash_id, uri=uri)


class CrashConflict(StorageError):
    """Two stores hold different bytes for one crash."""


class CrashChanged(StorageError):
    """The crash is not any more what it was when it was loaded, or there is more of it.

    :param what: of its store that was not loaded, where that is known
    """

    def __init__(self, crash_id: str, what: str = "", *, uri: str | None = None) -> None:
        reason = f"{what or 'what is there'} is not what was loaded"
        super().__init__(reason, crash_id=crash_id, uri=uri)


class CrashArchived(StorageError):
    """A part of the crash is archived, and can be read when it has been restored."""


class CorruptCrash(StorageError):
    """What the store holds of the crash is damaged."""


class StorageDenied(StorageError):
    """The store can be reached and refuses us."""


class StorageUnavailable(StorageError):
    """The store does not answer now; trying again may help."""

    is_retryable = True
    was_retried = False
    """Whether the store's client has tried again already, as often as helps."""


class ExceptionInfo(NamedTuple):
    """An exception, as `sys.exc_info` returns it."""

    type: type[Exception]
    value: Exception
    traceback: TracebackType | None


class PolyCrashStorageError(StorageError, ExceptionGroup[Exception]):
    """What went wrong in several stores at once: one exception a store, in `exceptions`.

    It is also a sequence of the same as `ExceptionInfo`, as Socorro's ``PolyStorageError`` is: its
    processor passes each item on as ``exc_info``.
    """

    def __new__(cls, exceptions: Sequence[Exception], *, crash_id: str | None = None) -> Self:
        reason = "; ".join(in_brief(error) for error in exceptions)
        self = super().__new__(cls, reason, exceptions)
        self.reason = reason
        self.crash_id = crash_id
        self.uri = None
        return self

    @property
    def is_retryable(self) -> bool:  # type: ignore[override]  # by its exceptions
        """Whether trying again may help with one of them."""
        return any(getattr(error, "is_retryable", False) for error in self.exceptions)

    def __len__(self) -> int:
        return len(self.exceptions)

    def __iter__(self) -> Iterator[ExceptionInfo]:
        return (ExceptionInfo(type(each), each, each.__traceback__) for each in self.exceptions)

    @overload
    def __getitem__(self, index: int) -> ExceptionInfo: ...

    @overload
    def __getitem__(self, index: slice) -> list[ExceptionInfo]: ...

    def __getitem__(self, index: int | slice) -> ExceptionInfo | list[ExceptionInfo]:
        return list(self)[index]

    def has_exceptions(self) -> bool:
        """Return True: there is always one."""
        return True

    def __init__(self, exceptions: Sequence[Exception], *, crash_id: str | None = None) -> None:
        """Everything is set in `__new__`, as an exception group must."""

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(PolyCrashStorageError, crash_id=self.crash_id)
        return make, (list(self.exceptions),)

    def derive(  # type: ignore[override]  # it holds no other than exceptions of stores
        self, excs: Sequence[Exception]
    ) -> "PolyCrashStorageError":
        """As `ExceptionGroup.split` and `subgroup` need it."""
        return PolyCrashStorageError(excs, crash_id=self.crash_id)


class QueueError(CrashMoverError):
    """Something went wrong in a queue."""


class QueueUnavailable(QueueError):
    """The queue does not answer now; trying again may help."""

    is_retryable = True


class CrashIdsFailedToPublish(QueueError):
    """Some crash ids were not confirmed by the queue: exactly `crash_ids`."""

    def __init__(self, crash_ids: Sequence[str], *, reason: str = "") -> None:
        text = f"{len(crash_ids)} crash ids were not published"
        super().__init__(f"{text}: {reason}" if reason else text)
        self.crash_ids = list(crash_ids)


def in_brief(error: Exception) -> str:
    """One line for any exception, without the crash id, for where that is said already."""
    return error.brief() if isinstance(error, StorageError) else describe(error)


def describe(error: BaseException) -> str:
    """One line for any exception, its type where its text says nothing."""
    text = " ".join(str(error).split())
    if isinstance(error, CrashMoverError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
