# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Redactor: what it takes out, what it leaves, and that it works on a copy."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crashmover.redaction import FORBIDDEN_KEYS, Redactor

quick = settings(deadline=None, max_examples=100)

# Made of the names on the forbidden paths, so that many of them are there, whole or in part.
NAMES = sorted({name for key in FORBIDDEN_KEYS for name in key.split(".")} | {"uuid", ""})
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=20,
)
processed_crashes = st.dictionaries(st.sampled_from(NAMES), values)


def at(value: Any, path: list[str]) -> Any:
    """What lies at the end of a path, or None."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def wrapped(path: str, value: Any) -> dict[str, Any]:
    """A mapping that holds `value` at the end of a path."""
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def test_the_forbidden_keys_are_those_of_socorro() -> None:
    assert Redactor().forbidden_keys == (
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


@pytest.mark.parametrize("value", ["x", None, "", 0, [1], {"a": {"b": 1}}], ids=ascii)
@pytest.mark.parametrize("key", FORBIDDEN_KEYS)
def test_a_forbidden_key_is_taken_out_whatever_its_value(key: str, value: object) -> None:
    parent, _, name = key.rpartition(".")
    beside = {name: value, "beside": 1}
    processed = {**(wrapped(parent, beside) if parent else beside), "uuid": "x"}
    left = wrapped(parent, {"beside": 1}) if parent else {"beside": 1}
    assert Redactor().redact(processed) == {**left, "uuid": "x"}


@pytest.mark.parametrize("blocked", [None, "text", 7, True, [], [{"sensitive": 1}], {}], ids=ascii)
@pytest.mark.parametrize("key", [key for key in FORBIDDEN_KEYS if "." in key])
def test_what_is_no_object_on_the_way_never_stops_it(key: str, blocked: object) -> None:
    parent = key.rpartition(".")[0]
    secrets = {other: "x" for other in FORBIDDEN_KEYS if "." not in other}
    processed = {**secrets, **wrapped(parent, blocked)}
    assert Redactor().redact(processed) == wrapped(parent, blocked)


def test_the_same_name_elsewhere_is_not_forbidden() -> None:
    processed = {"json_dump": {"url": "x"}, "sensitive": 1, "json_dump.sensitive": 2}
    assert Redactor().redact(processed) == processed


@quick
@given(processed_crashes)
def test_nothing_forbidden_is_left_and_the_argument_stays_as_it_was(
    processed: dict[str, Any],
) -> None:
    before = copy.deepcopy(processed)
    redacted = Redactor().redact(processed)
    assert processed == before
    assert all(at(redacted, key.split(".")) is None for key in FORBIDDEN_KEYS)
    assert Redactor().redact(redacted) == redacted


@quick
@given(processed_crashes, st.sampled_from(FORBIDDEN_KEYS))
def test_it_takes_out_that_key_and_nothing_else(processed: dict[str, Any], key: str) -> None:
    redacted = Redactor([key]).redact(processed)
    parent, _, name = key.rpartition(".")
    path = parent.split(".") if parent else []
    removed = at(processed, path)
    if isinstance(removed, dict) and name in removed:
        at(redacted, path)[name] = removed[name]
    assert redacted == processed


def test_whatever_json_can_be_read_can_be_redacted() -> None:
    deep = 700
    processed = json.loads('{"a":' * deep + "1" + "}" * deep)
    processed["url"] = "x"
    assert "url" not in Redactor().redact(processed)


@pytest.mark.parametrize(
    "keys",
    ["a, b.c", " a ,b.c,", ["a", "b.c"], ("a", " b.c "), iter(["a", "", "b.c"])],
    ids=["text", "text with blanks", "list", "tuple", "iterator"],
)
def test_other_keys_are_given_as_text_or_one_by_one(keys: str | list[str]) -> None:
    redactor = Redactor(keys)
    assert redactor.forbidden_keys == ("a", "b.c")
    for _ in range(2):
        assert redactor({"a": 1, "b": {"c": 2, "d": 3}, "url": "x"}) == {"b": {"d": 3}, "url": "x"}


@pytest.mark.parametrize("keys", ["", " , ", []], ids=ascii)
def test_no_forbidden_keys_take_nothing_out(keys: str | list[str]) -> None:
    assert Redactor(keys).redact({"url": "x", "": 1}) == {"url": "x", "": 1}
