# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Bytes that strangers send, to each parser of bytes: they are what they say, or are refused by
the one error that is for it."""

import gzip
import io
import json
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crashmover import crashid
from crashmover.crash import Kind, Part
from crashmover.documents import json_object
from crashmover.errors import CorruptCrash, InvalidCrashID
from crashmover.external.bucket.layouts import format_dump_names, parse_dump_names
from crashmover.external.crashqueue_base import parse_body
from crashmover.external.fs.packing import gunzipped
from crashmover.testing import CRASH_ID

FEW = settings(max_examples=100, derandomize=True, deadline=None)

bytes_like_json = (
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
    | st.text(max_size=20).map(lambda text: text.encode("utf-16"))
)


def value_of(data: bytes) -> object:
    """What Python's own reader makes of it; an error where that makes nothing."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        return error


@FEW
@given(bytes_like_json)
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"a": ' + b"9" * 10_000 + b"}")
@example(b'{"a": NaN, "b": 1e999}')
@example(b'{"a": "\\ud800"}')
@example(b"\xef\xbb\xbf{}")
@example(b"\xff\xfe{\x00}\x00")
def test_any_bytes_are_a_json_object_or_corrupt(data: bytes) -> None:
    part = Part.of_bytes(Kind.RAW_CRASH, data)
    expected = value_of(data)
    if isinstance(expected, dict):
        assert repr(json_object(part)) == repr(expected)  # repr, as no NaN is another
    else:
        with pytest.raises(CorruptCrash) as caught:
            json_object(part)
        assert str(caught.value).isprintable()


@FEW
@given(bytes_like_json)
@example(b'["raw_crash"]')
@example(b'["../x"]')
@example(b'["dump", "upload_file_minidump", null]')
@example(b"[[]]")
@example(b"[" * 100_000)
def test_any_bytes_are_names_of_dumps_or_corrupt(data: bytes) -> None:
    try:
        names = parse_dump_names(data)
    except CorruptCrash as error:
        assert str(error).isprintable() and len(str(error)) < 300
        return
    assert len(names) == len(set(names))
    assert sorted(parse_dump_names(format_dump_names(names))) == sorted(names)


@FEW
@given(st.binary(max_size=80).map(lambda data: data.decode("latin-1")) | st.text(max_size=60))
@example(f"{CRASH_ID}:")
@example(f"{CRASH_ID}\n")
@example(f"{CRASH_ID}:a\n")
@example(f":{CRASH_ID}")
def test_any_body_of_a_message_is_a_crash_id_or_is_refused(text: str) -> None:
    try:
        crash_id, ruleset = parse_body(text)
    except InvalidCrashID as error:
        assert str(error).isprintable() and len(str(error)) < 300
        return
    assert crashid.is_valid(crash_id)
    assert text == (f"{crash_id}:{ruleset}" if ruleset else crash_id)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def with_more_behind(data: bytes) -> bytes:
    return data + b"more"


def twice(data: bytes) -> bytes:
    return data * 2


def with_zeros_behind(data: bytes) -> bytes:
    return data + bytes(7)


def with_another_checksum(data: bytes) -> bytes:
    return data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]


Damage = Callable[[bytes], bytes]
DAMAGES: list[Damage] = [
    bytes, cut, with_more_behind, twice, with_zeros_behind, with_another_checksum,
]  # fmt: skip


@FEW
@given(st.binary(max_size=300), st.sampled_from(DAMAGES), st.integers(1, 64))
def test_any_packed_bytes_are_unpacked_as_gzip_does_or_corrupt(
    data: bytes, damage: Damage, step: int
) -> None:
    assert_as_gzip(damage(gzip.compress(data)), step)


@FEW
@given(st.binary(max_size=100), st.integers(1, 64))
@example(b"", 1)
@example(b"\x1f\x8b\x08\x00", 1)
def test_any_bytes_are_unpacked_as_gzip_does_or_corrupt(packed: bytes, step: int) -> None:
    assert_as_gzip(packed, step)


def _has_bad_header(packed: bytes) -> bool:
    while packed := packed.lstrip(b"\0"):
        member = zlib.decompressobj(31)
        try:
            member.decompress(packed)
        except zlib.error:
            return True
        packed = member.unused_data
    return False


def assert_as_gzip(packed: bytes, step: int) -> None:
    """What is unpacked, so many bytes at a time, is what Python's own reader has.

    That reader takes a header with a wrong checksum or unknown flags, which zlib refuses.
    """
    try:
        expected = gzip.decompress(packed) if packed else None
    except (OSError, EOFError, zlib.error):
        expected = None
    file = gunzipped(io.BytesIO(packed), CorruptCrash("is not whole gzip"))
    pieces = iter(lambda: file.read(step), b"")
    if expected is None:
        with pytest.raises(CorruptCrash):
            list(pieces)
    elif _has_bad_header(packed):
        with suppress(CorruptCrash):
            assert b"".join(pieces) == expected
    else:
        assert b"".join(pieces) == expected
