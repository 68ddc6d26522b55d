# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Redaction: what of a crash is public, and how the rest is taken out of a processed crash."""

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, TypeVar, cast

Changeable = TypeVar("Changeable", bound=MutableMapping[str, Any])

FORBIDDEN_KEYS = (
    "url",
    "email",
    "user_id",
    "exploitability",
    "json_dump.sensitive",
    "upload_file_minidump_flash1.json_dump.sensitive",
    "upload_file_minidump_flash2.json_dump.sensitive",
    "upload_file_minidump_browser.json_dump.sensitive",
    "memory_info",
)
"""Dotted paths, as Mozilla Socorro's `Redactor` forbids them."""


PUBLIC_ANNOTATIONS = (
    "ProductName",
    "Version",
    "BuildID",
    "ReleaseChannel",
    "Vendor",
    "ProcessType",
    "CrashTime",
    "UptimeTS",
    "StartupCrash",
    "OOMAllocationSize",
    "submitted_timestamp",
)
"""What is shown of a raw crash unasked.  Source of what is public: Mozilla Socorro,
``socorro/schemas/raw_crash.schema.yaml``, permission "public".  ``MozCrashReason`` is not: it may
hold what a user has typed; a processed crash has it without that."""

PUBLIC_FIELDS = (
    "signature",
    "reason",
    "address",
    "moz_crash_reason",
    "crashing_thread",
    "crashing_thread_name",
    "product",
    "version",
    "build",
    "release_channel",
    "process_type",
    "os_name",
    "os_version",
    "os_pretty_version",
    "cpu_arch",
    "uptime",
    "date_processed",
    "success",
)
"""What is shown of a processed crash unasked, where the redactor leaves it in.  Source of what is
public: Mozilla Socorro, ``socorro/schemas/processed_crash.schema.yaml``, permission "public"."""


class Redactor:
    """Removes forbidden keys from a mapping.

    :param forbidden_keys: dotted paths (``a.b.c`` is the key ``c`` in ``b`` in ``a``), as
        an iterable or one comma-separated text
    """

    def __init__(self, forbidden_keys: str | Iterable[str] = FORBIDDEN_KEYS) -> None:
        if isinstance(forbidden_keys, str):
            forbidden_keys = forbidden_keys.split(",")
        keys = (key.strip() for key in forbidden_keys)
        self.forbidden_keys = tuple(key for key in keys if key)

    def redact(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of `mapping` without the forbidden keys; `mapping` stays as it was.

        The copy shares with it whatever no forbidden key leads through.
        """
        redacted = dict(mapping)
        for key in self.forbidden_keys:
            _remove(redacted, key.split("."), in_place=False)
        return redacted

    def __call__(self, mapping: Changeable) -> Changeable:
        """Remove the forbidden keys from `mapping` itself, and return it.

        Socorro's own redactor is called so, and its callers ignore what it returns.

        :raises TypeError: `mapping` cannot be changed
        """
        if not isinstance(mapping, MutableMapping):
            raise TypeError(f"a {type(mapping).__name__} cannot be redacted in place: use redact()")
        for key in self.forbidden_keys:
            _remove(mapping, key.split("."), in_place=True)
        return mapping


def _remove(value: MutableMapping[str, Any], path: list[str], *, in_place: bool) -> None:
    """Take one path out; where it is not there, or leads through no object, there is nothing.

    The objects on the way are copied, and no others: what is removed may be far down in a
    document that is too deep to be copied whole.

    :param in_place: change the objects on the way themselves, as far as they can be changed
    """
    for name in path[:-1]:
        inner = value.get(name)
        if not isinstance(inner, Mapping):
            return
        in_place = in_place and isinstance(inner, MutableMapping)
        if not in_place:
            value[name] = inner = dict(inner)
        value = cast(MutableMapping[str, Any], inner)
    value.pop(path[-1], None)
