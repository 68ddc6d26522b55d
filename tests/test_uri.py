# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""StorageURI: what it understands, what it refuses, and that it never shows a secret."""

import traceback

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crashmover.errors import InvalidURI
from crashmover.uri import StorageURI, endpoint

CANARY = "CANARY"

quick = settings(deadline=None, max_examples=150)

# What URIs are made of, in any order: far more of them parse than of any text.
delimiters = st.sampled_from(["//", "/", "@", ":", "?", "&", "=", "#", "[", "]", "%", " ", "\n"])
escapes = st.sampled_from(["%2F", "%40", "%3A", "%0A", "%00", "%ff", "%25"])
words = st.sampled_from(
    ["s3:", "fs:", "./", "5432", "::1", "password", "a", "B", "\u00e9", "\u2100"]
)
uris = st.lists(delimiters | escapes | words, max_size=12).map("".join)
texts = st.one_of(st.text(), uris)


def parsed(text: str) -> StorageURI | None:
    try:
        return StorageURI.parse(text)
    except InvalidURI:
        return None


def shown(text: str) -> str:
    """Everything that a user can come to see of a URI: its text, its repr, its error."""
    try:
        uri = StorageURI.parse(text)
    except InvalidURI as error:
        return f"{error}\n{error!r}\n{''.join(traceback.format_exception(error))}"
    return f"{uri}\n{uri!r}"


# What it understands


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fs:///var/crashes", StorageURI("fs", path="/var/crashes")),
        ("fs:/var/crashes", StorageURI("fs", path="/var/crashes")),
        (
            "fs:///var/crashes?umask=027",
            StorageURI("fs", path="/var/crashes", query={"umask": "027"}),
        ),
        ("/var/crashes", StorageURI("fs", path="/var/crashes")),
        ("./crashes", StorageURI("fs", path="./crashes")),
        ("../crashes", StorageURI("fs", path="../crashes")),
        (".", StorageURI("fs", path=".")),
        ("..", StorageURI("fs", path="..")),
        ("./crashes?umask=027", StorageURI("fs", path="./crashes", query={"umask": "027"})),
        ("/a b#c:d@e%20", StorageURI("fs", path="/a b#c:d@e%20")),
        ("fs:///a%20b%23%3F", StorageURI("fs", path="/a b#?")),
        ("memory:", StorageURI("memory")),
        (
            "s3://bucket/prefix?endpoint_url=http://127.0.0.1:9000&region=us-west-2",
            StorageURI(
                "s3",
                host="bucket",
                path="/prefix",
                query={"endpoint_url": "http://127.0.0.1:9000", "region": "us-west-2"},
            ),
        ),
        ("s3://My.Bucket", StorageURI("s3", host="My.Bucket")),
        (
            "postgresql://user@host:5432/db?schema=crashes",
            StorageURI(
                "postgresql",
                host="host",
                path="/db",
                user="user",
                port=5432,
                query={"schema": "crashes"},
            ),
        ),
        (
            "postgresql://me%40home:p%2F%40%3A@host/db",
            StorageURI("postgresql", host="host", path="/db", user="me@home", password="p/@:"),
        ),
        ("pubsub://project/prod", StorageURI("pubsub", host="project", path="/prod")),
        ("sqlite:///var/queue.db", StorageURI("sqlite", path="/var/queue.db")),
        ("fs:///a?b=&c=%26", StorageURI("fs", path="/a", query={"b": "", "c": "&"})),
        ("x-y+z.1://h", StorageURI("x-y+z.1", host="h")),
    ],
)
def test_a_uri_or_a_path_falls_into_its_pieces(text: str, expected: StorageURI) -> None:
    assert StorageURI.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "fs:///var/crashes?umask=027",
        "s3://bucket/prefix?endpoint_url=http://127.0.0.1:9000&region=us-west-2",
        "postgresql://user@host:5432/db?schema=crashes",
        "postgresql://[::1]:5432/db",
        "memory:",
        "pubsub://project?standard_topic=a&standard_subscription=b",
    ],
)
def test_a_uri_without_a_secret_is_shown_as_it_is_written(text: str) -> None:
    assert str(StorageURI.parse(text)) == text


@quick
@given(uris)
@example("s3://a%2Fb")
@example("s3://a%40b")
@example("s3://a%2Fb@h")
@example("s3://h%3A1:2")
@example("x://a,b:1")
@example("x://a%2Cb:1")
def test_what_is_shown_of_a_uri_without_a_secret_is_the_same_uri(text: str) -> None:
    uri = parsed(text)
    if uri and "***" not in str(uri):
        assert StorageURI.parse(str(uri)) == uri


# What it refuses


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "crashes",
        "C",
        "~",
        "fs:///a\nb",
        "fs:///a\0",
        "/a\n",
        "./a\x1b[2J",
        ":",
        "://bucket",
        "3s://bucket",
        "s3_://bucket",
        "\u017f3://bucket",
        " s3://bucket",
        "s3://bucket#fragment",
        "s3://bucket?region",
        "s3://bucket?region=a&region=b",
        "s3://bucket?a=%ff",
        "./crashes?umask",
        "postgresql://h:port/db",
        "postgresql://h:65536/db",
        "postgresql://h:-1/db",
        "postgresql://h:\u0661/db",
        "postgresql://[::1/db",
        "postgresql://h\u2100/db",
    ],
    ids=ascii,
)
def test_what_is_neither_a_uri_nor_a_path_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidURI) as caught:
        StorageURI.parse(text)
    assert str(caught.value).isprintable()
    assert isinstance(caught.value, ValueError)


@quick
@given(texts)
@example("s3://b%0Ac")
@example("postgresql://h:" + "9" * 5000)
@example("x://[v1.a]")
def test_any_text_is_a_uri_of_one_printable_line_or_is_refused(text: str) -> None:
    uri = parsed(text)
    if uri:
        assert str(uri).isprintable()
        assert repr(uri).isprintable()


# What it never shows


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:CANARY@h/db",
        "postgresql://u:CANARY@h:5432/db?schema=a",
        "postgresql://:CANARY@h/db",
        "postgresql://u:%43ANARY@h/db",
        "s3://k:CANARY@b",
        "s3://k:CANARY@b/prefix",
        "s3://k:a:CANARY@b",
        "s3://k:a@CANARY@b",
        "s3://k:CANARY@",
        "nosuch://u:CANARY@h",
    ],
)
def test_a_password_is_kept_and_never_shown(text: str) -> None:
    assert CANARY in StorageURI.parse(text).password
    assert CANARY not in shown(text)
    assert ":***@" in str(StorageURI.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:CANARY@h:port/db",
        "postgresql://u:CANARY@h:99999/db",
        "postgresql://u:CANARY@h:-1/db",
        "postgresql://u:CANARY@h:5432:5432/db",
        "postgresql://u:CANARY@[::1/db",
        "postgresql://u:CANARY@::1]/db",
        "postgresql://u:CANARY@[nonsense]/db",
        "postgresql://u:[CANARY]@h/db",
        "postgresql://u:[CANARY@h/db",
        "postgresql://u:CANARY]@h/db",
        "postgresql://u:CANARY@h\u2100/db",
        "postgresql://u:CANARY\u2100@h/db",
        "postgresql://u:CANARY\n@h/db",
        "postgresql://u:CANARY@h/db?schema",
        "postgresql://u:CANARY@h/db?password=CANARY&password=CANARY",
        "postgresql://u:CANARY@h/db#fragment",
        "postgresql://u:x#CANARY@h/db",
        "postgresql://u:x/CANARY@h/db",
        "postgresql://u:x?CANARY@h/db",
        "POSTGRESQL://u:CANARY@h/db",
        "postgres_ql://u:CANARY@h/db",
        "u:CANARY@h/db\0",
    ],
    ids=ascii,
)
def test_no_error_of_a_malformed_uri_shows_its_password(text: str) -> None:
    assert CANARY not in shown(text)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:/CANARY@h/db",
        "postgresql://u:12/CANARY@h/db",
        "postgresql://u:12?a=CANARY@h/db",
        "postgresql:u:CANARY@h/db",
        "postgresql:/u:CANARY@h/db",
        "postgresql:///u:CANARY@h/db",
        "s3://bucket?endpoint_url=http://u:CANARY@127.0.0.1:9000",
        "s3://bucket?endpoint_url=http%3A%2F%2Fu%3ACANARY%40127.0.0.1",
    ],
)
def test_a_password_in_the_wrong_place_is_not_shown_either(text: str) -> None:
    assert CANARY not in shown(text)


@pytest.mark.parametrize("text", ["http://[::1", "http://h:99999", "http://h:a", "http://:80"])
def test_an_endpoint_has_a_host_and_a_port_or_none(text: str) -> None:
    with pytest.raises(ValueError, match="it is a URL such as"):
        endpoint(text)


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "PASSWORD",
        "p%61ssword",
        "sslpassword",
        "passwd",
        "passphrase",
        "secret",
        "aws_secret_access_key",
        "aws_session_token",
        "api_key",
        "credentials",
        "signature",
    ],
)
def test_the_value_of_a_secret_option_is_kept_and_never_shown(key: str) -> None:
    text = f"postgresql://h/db?schema=a&{key}=CANARY"
    assert CANARY in StorageURI.parse(text).query.values()
    assert CANARY not in shown(text)
    assert "schema=a" in str(StorageURI.parse(text))
    assert "=***" in str(StorageURI.parse(text))


@quick
@given(texts, texts, st.sampled_from(["postgresql://u:{}@h/db", "s3://k:{}@b", "s3://:{}@b:1"]))
def test_no_password_whatever_is_in_it_is_ever_shown(before: str, after: str, form: str) -> None:
    assert CANARY not in shown(form.format(f"{before}{CANARY}{after}"))


@quick
@given(texts, texts)
def test_no_uri_whatever_is_around_it_shows_the_password_that_it_was_given(
    before: str, after: str
) -> None:
    uri = parsed(f"{before}CANARY{after}")
    if uri and CANARY in uri.password and CANARY not in uri.user + uri.host + uri.path:
        assert CANARY not in f"{uri}{uri!r}"


# What a store asks of it


def octal(text: str) -> int:
    return int(text, 8)


def test_the_query_becomes_keyword_arguments() -> None:
    uri = StorageURI.parse("fs:///a?umask=027&name_branch_base=date")
    options = uri.options(umask=octal, name_branch_base=str, json_file_suffix=str)
    assert options == {"umask": 0o27, "name_branch_base": "date"}


def test_an_unknown_option_is_refused_by_name_with_those_there_are() -> None:
    uri = StorageURI.parse("fs:///a?unmask=CANARY")
    with pytest.raises(InvalidURI) as caught:
        uri.options(umask=octal, dump_field=str)
    assert str(caught.value) == "fs: unknown option 'unmask'; there are: dump_field, umask"


def test_a_store_without_options_says_so() -> None:
    with pytest.raises(InvalidURI, match=r"unknown option 'a'; there are: none\Z"):
        StorageURI.parse("memory:?a=b").options()


def test_a_malformed_option_is_refused_by_name() -> None:
    def refuse(_text: str) -> int:
        raise ValueError("an octal number such as 027")

    with pytest.raises(InvalidURI, match=r"\Afs: option umask: an octal number such as 027\Z"):
        StorageURI.parse("fs:///a?umask=9").options(umask=refuse)


@quick
@given(st.text(min_size=1))
def test_the_name_of_an_unknown_option_is_shown_in_one_short_line(key: str) -> None:
    with pytest.raises(InvalidURI) as caught:
        StorageURI("fs", path="/a", query={key: "CANARY"}).options()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("host", "fs://h/a"),
        ("path", "memory:a"),
        ("user", "fs://u@/a"),
        ("password", "fs://:CANARY@/a"),
        ("port", "fs://:1/a"),
    ],
)
def test_a_piece_that_a_scheme_has_not_is_refused_by_name(name: str, text: str) -> None:
    uri = StorageURI.parse(text)
    with pytest.raises(InvalidURI) as caught:
        uri.refuse(name)
    assert str(caught.value) == f"{uri.scheme}: a {uri.scheme} URI has no {name}"


def test_what_is_not_given_is_not_refused() -> None:
    uri = StorageURI.parse("fs:///a")
    uri.refuse("host", "user", "password", "port")
    assert uri == StorageURI("fs", path="/a")
