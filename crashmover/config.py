# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Named stores and queues, from a TOML file.

::

[storage]
prod    = "s3://crashes-prod?region=us-west-2"
archive = ["fs:///archive", "cold"]    # a list is a PolyCrashStorage; lists may name lists
cold    = ["s3://cold-a", "s3://cold-b"]
[queue]
prod    = "pubsub://my-project/prod"
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crashmover.directories import NO_HOME, config_directory
from crashmover.errors import InvalidConfig
from crashmover.uri import refuse_tilde

ENVIRONMENT = "CRASHMOVER_CONFIG"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

_MOST = 256 << 10  # bytes
_MOST_URIS = 1000  # behind a name
_MOST_DOTS = 100  # in a key, which the parser takes time for that grows with their third power

_CALLED = {"storage": "store", "queue": "queue"}
_OTHERWISE = {
    "storage": "the path of a directory needs a slash, as in ./crashes",
    "queue": "a queue in a file is sqlite:./queue.db",
}

Names = Mapping[str, str | list[str]]


def is_name(text: str) -> bool:
    """Whether this is a name for the configuration file, and so neither a URI nor a path."""
    return _NAME.fullmatch(text) is not None


def default_path() -> Path | None:
    """Return where the file is by default; None without a home directory."""
    directory = config_directory()
    return directory and directory / "config.toml"


@dataclass(frozen=True)
class Config:
    """What the file says.  Its values may hold secrets: they are not in its `repr`.

    :param path: where the file is, or would be; None without a home directory
    :param absent: why the default file was not read; None if it was, or is only missing
    """

    path: Path | None = None
    absent: str | None = None
    storage: Names = field(default_factory=dict, repr=False)
    queue: Names = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> "Config":
        """Read `path`, else the file that `CRASHMOVER_CONFIG` names, else the platform's.

        Only the last may be missing, or in a directory that this process cannot enter.

        :raises InvalidConfig: it cannot be read, is not TOML, or says something unknown
        """
        asked = path or os.environ.get(ENVIRONMENT)
        if asked:
            return cls._read(_path_as_typed(asked))
        where = default_path()
        if where is None:
            return cls(absent=NO_HOME)
        try:
            where.stat()
        except FileNotFoundError:
            return cls(where)
        except OSError as error:  # such as HOME=/root for another user, or HOME=/dev/null
            return cls(where, absent=f"{where}: cannot be reached: {error.strerror}")
        return cls._read(where)

    @classmethod
    def _read(cls, where: Path) -> "Config":
        import tomllib

        try:
            content = tomllib.loads(_text_of(where))
        except InvalidConfig:
            raise
        except FileNotFoundError:
            raise InvalidConfig(f"{where}: no such configuration file") from None
        except OSError as error:
            raise InvalidConfig(f"{where}: cannot be read: {error.strerror}") from None
        except ValueError as error:  # not UTF-8, or tomllib.TOMLDecodeError
            raise InvalidConfig(f"{where}: not TOML: {error}") from None
        except RecursionError:
            raise InvalidConfig(f"{where}: nested too deeply") from None
        sections = _sections(where, content)
        return cls(where, storage=sections.get("storage", {}), queue=sections.get("queue", {}))

    def stores(self, name: str) -> list[str]:
        """Return the URIs behind a store's name, names of names followed to the end.

        :raises InvalidConfig: there is no such store, or it contains itself
        """
        return self._follow("storage", name, ())

    def queue_uri(self, name: str) -> str:
        """Return the URI behind a queue's name.

        :raises InvalidConfig: there is no such queue, or it contains itself, or is several
        """
        uris = self._follow("queue", name, ())
        if len(uris) != 1:
            raise InvalidConfig(f"{self._called}: queue.{name} must be one queue")
        return uris[0]

    @property
    def _called(self) -> str:
        return str(self.path or "the configuration")

    def _no_such(self, section: str, name: str, names: Names) -> str:
        if self.absent:
            return (
                f"no such {_CALLED[section]} {name!r}: there is no configuration file:"
                f" {self.absent}; use --config or {ENVIRONMENT}; {_OTHERWISE[section]}"
            )
        known = ", ".join(sorted(names)) or "none"
        return (
            f"no {_CALLED[section]} named {name!r} in {self._called} (there: {known});"
            f" {_OTHERWISE[section]}"
        )

    def _follow(self, section: str, name: str, above: tuple[str, ...]) -> list[str]:
        names: Names = getattr(self, section)
        if name in above:
            raise InvalidConfig(f"{self._called}: {section}.{name} contains itself")
        if name not in names:
            raise InvalidConfig(self._no_such(section, name, names))
        value = names[name]
        uris: list[str] = []
        for item in [value] if isinstance(value, str) else value:
            uris += self._follow(section, item, (*above, name)) if is_name(item) else [item]
            if len(uris) > _MOST_URIS:  # each name may stand for two of the next
                raise InvalidConfig(f"{self._called}: {section}.{name} stands for too many")
        return uris


def _path_as_typed(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that the user named.

    :raises InvalidConfig: it begins with a tilde, which only a shell expands
    """
    try:
        return Path(refuse_tilde(os.fspath(path)))
    except ValueError as error:
        raise InvalidConfig(f"configuration file {path}: {error}") from None


def _text_of(path: Path) -> str:
    """Return what is in the file, unless it is so much, or such, that reading it would take long.

    :raises InvalidConfig: that would take long
    """
    with path.open("rb") as file:
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise InvalidConfig(f"{path}: longer than {_MOST >> 10} KiB")
    text = data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    if any(line.partition("=")[0].count(".") > _MOST_DOTS for line in text.splitlines()):
        raise InvalidConfig(f"{path}: a key in it has too many parts")
    return text


def _sections(path: Path, content: Mapping[str, Any]) -> dict[str, Names]:
    """Check the shape of the file without ever quoting a value."""
    for section, names in content.items():
        if section not in ("storage", "queue"):
            shown = f"[{section}]" if is_name(section) else ""
            raise InvalidConfig(f"{path}: unknown section {shown}; there are: storage, queue")
        if not isinstance(names, dict):
            raise InvalidConfig(f"{path}: {section} must be a section: [{section}]")
        for name, value in names.items():
            if not is_name(name):
                # Not shown: it may be a URI that changed places with its name.
                raise InvalidConfig(f"{path}: [{section}] has a name that is none: A-Z a-z 0-9 _ -")
            if not _is_uri_or_list(value):
                raise InvalidConfig(f"{path}: {section}.{name} must be a URI or a list of them")
    return dict(content)


def _is_uri_or_list(value: object) -> bool:
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(isinstance(item, str) and item for item in items)
