# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Answers of an S3 server that say that all is well, and are none, or say otherwise inside; and
uploads of whose end nobody hears."""

from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl, urlsplit

import pytest

from crashmover.crash import MARKERS, Kind
from crashmover.errors import StorageDenied, StorageError, StorageUnavailable
from crashmover.external.bucket.bodies import PART_SIZE
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, MAIN, RAW, Contents, contents, crash_of, read
from tests.cli_helpers import is_harmless
from tests.conftest import Figures, UseAWS
from tests.s3_proxy import Fault, Place, Replies, Request, ResetAfter, Says, behind_proxy

slow = pytest.mark.slow

RAW_CRASH_KEY = f"v1/raw_crash/20071025/{CRASH_ID}"
LARGE = contents() | {MAIN: bytes(range(256)) * (PART_SIZE // 256) + b"x"}


@pytest.fixture(params=["s3_strict"])
def place(request: pytest.FixtureRequest, aws: UseAWS) -> Iterator[Place]:
    with behind_proxy(aws(request.getfixturevalue(request.param))) as place:
        yield place


on_both_kinds = pytest.mark.parametrize(
    "place", ["s3_signed", pytest.param("s3_strict", marks=slow)], indirect=True
)


def is_completion(request: Request) -> bool:
    return request.method == "POST" and "?uploadId=" in request


def is_small_dump(request: Request) -> bool:
    return request.method == "PUT" and "/v1/dump/" in request


def is_deletion(request: Request) -> bool:
    return request.method == "POST" and "?delete" in request


def error_of(act: Callable[[], object]) -> StorageError | None:
    """Return the error that this raises, if it does, which must be one of ours."""
    try:
        act()
    except StorageError as error:
        assert is_harmless(str(error))
        return error
    return None


# Saving

ANSWERS: dict[str, Fault] = {
    "internal error": Says(200, "InternalError"),
    "access denied": Says(200, "AccessDenied"),
    "some error": Says(200, "NobodyKnows"),
    "nothing": Replies(b""),
    "a page": Replies(b"<html><p>InternalError: log in first</p></html>"),
    "no list": Replies(b"<DeleteResult></DeleteResult>"),
}
QUICK = ["a page"]


@pytest.mark.parametrize("times", [1, pytest.param(1_000_000, marks=slow)])
@pytest.mark.parametrize(
    "answer", [name if name in QUICK else pytest.param(name, marks=slow) for name in ANSWERS]
)
@pytest.mark.parametrize(
    ("crash", "which"), [(contents(), is_small_dump), (LARGE, is_completion)], ids=["put", "upload"]
)
def test_what_was_not_saved_is_not_taken_for_saved(
    place: Place,
    figures: Figures,
    crash: Contents,
    which: Callable[[Request], bool],
    answer: str,
    times: int,
) -> None:
    bucket = place.server.new_bucket()
    with (
        open_storage(place.server.uri(bucket)) as direct,
        open_storage(place.uri(bucket)) as storage,
    ):
        place.proxy.fail(ANSWERS[answer], which, times)
        error = error_of(lambda: storage.save_crash(crash_of(crash)))
        assert error is None or isinstance(error, StorageUnavailable)
        assert direct.has_crash(CRASH_ID) == (error is None)
        assert times == 1 or error
        place.heal()
        storage.save_crash(crash_of(crash))
        assert read(direct) == crash
    figures(answers=1, **{"said" if error else "got_over": 1})


@on_both_kinds
def test_an_upload_of_whose_end_nobody_hears_is_not_sent_again(place: Place) -> None:
    """Asked once more, these servers say that there is no such upload."""
    with open_storage(place.uri(place.server.new_bucket())) as storage:
        place.proxy.fail(ResetAfter(), is_completion, times=1)
        storage.save_crash(crash_of(LARGE))
        assert place.proxy.count("partNumber=") == 2
        assert read(storage) == LARGE


@slow
def test_an_upload_that_the_server_has_lost_is_tried_again_and_no_other_is_taken_for_it(
    place: Place,
) -> None:
    with open_storage(place.uri(place.server.new_bucket())) as storage:
        storage.save_crash(crash_of(LARGE))
        other = LARGE | {MAIN: LARGE[MAIN][::-1]}
        place.proxy.fail(Says(404, "NoSuchUpload"), is_completion)
        with pytest.raises(StorageUnavailable, match="NoSuchUpload"):
            storage.save_crash(crash_of(other))
        assert not storage.has_crash(CRASH_ID)
        place.heal()
        storage.save_crash(crash_of(other))
        assert read(storage) == other


# Removing


def refusal(key: str, code: str) -> Replies:
    """An answer to a request to delete objects, of which all were but this."""
    text = "so sorry \N{ESCAPE}[31m, not (code: Today)"
    error = f"<Key>{key}</Key><Code>{code}</Code><Message>{text}</Message>"
    deleted = "<Deleted><Key>another</Key></Deleted>"
    return Replies(f"<DeleteResult>{deleted}<Error>{error}</Error></DeleteResult>".encode())


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        (refusal(RAW_CRASH_KEY, "AccessDenied"), StorageDenied, "access denied"),
        (refusal("v1/of/another", "AccessDenied"), StorageUnavailable, "not that of an S3 server"),
        *(
            pytest.param(refusal(RAW_CRASH_KEY, code), kind, f"the server says {code}", marks=slow)
            for code, kind in (
                ("NobodyKnows", StorageError),
                ("ServiceUnavailable", StorageUnavailable),
                ("SlowDown", StorageUnavailable),
            )
        ),
    ],
)
def test_what_was_not_deleted_is_said(
    place: Place, figures: Figures, fault: Fault, kind: type[StorageError], reason: str
) -> None:
    bucket = place.server.new_bucket()
    with (
        open_storage(place.server.uri(bucket)) as direct,
        open_storage(place.uri(bucket)) as storage,
    ):
        storage.save_crash(crash_of(contents()))
        storage.remove(CRASH_ID)  # from now on it is known what the server honours
        storage.save_crash(crash_of(contents()))
        place.proxy.fail(fault, is_deletion)
        error = error_of(lambda: storage.remove(CRASH_ID))
        assert type(error) is kind
        assert error.reason.endswith(reason)
        assert read(direct) == contents()
        place.heal()
        storage.remove(CRASH_ID)
        assert not direct.has_crash(CRASH_ID)
    figures(answers=1)


# Listing

IDS = [f"{n:08x}-8721-460c-dead-a43c22071025" for n in range(2000)]
PAGES = {
    "a page": b"<html><p>Log in first</p></html>",
    "a page that is no XML": b"<!doctype html><p>Log in first<br>",
    "an error": b"<Error><Code>AccessDenied</Code></Error>",
}


def two_pages(request: Request, _head: dict[str, str], _body: bytes) -> Fault | None:
    """As a server answers that has these crashes, a thousand keys a page."""
    if "list-type" not in request:
        return None
    query = dict(parse_qsl(urlsplit(request.path).query))
    prefix, day = query.get("prefix", ""), "v1/raw_crash/20071025/"
    after = query.get("continuation-token") or query.get("start-after", "")
    keys = [key for key in (day + each for each in IDS) if key.startswith(prefix) and key > after]
    if "delimiter" in query and keys and prefix != day:
        return Replies(listing(f"<CommonPrefixes><Prefix>{day}</Prefix></CommonPrefixes>"))
    page = keys[: int(query.get("max-keys", 1000))]
    rest = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if keys != page else ""
    said = "".join(f"<Contents><Key>{key}</Key>{OF_EACH}</Contents>" for key in page)
    return Replies(listing(rest + said))


OF_EACH = "<Size>2</Size><ETag>1</ETag><LastModified>2026-11-29T00:00:00Z</LastModified>"


def listing(inner: str) -> bytes:
    return f"<ListBucketResult>{inner}</ListBucketResult>".encode()


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_never_taken_for_the_end_of_a_listing(
    place: Place, figures: Figures, page: str, lasting: bool
) -> None:
    place.proxy.policy = two_pages
    with open_storage(place.uri(place.server.new_bucket())) as storage:
        whole = list(storage.new_crashes())
        assert whole == IDS
        requests = place.heal()
        for number in range(1, requests + 1):
            place.fail_at(number, Replies(PAGES[page]), lasting=lasting)
            found: list[str] = []
            error = error_of(lambda found=found: found.extend(storage.new_crashes()))  # type: ignore[misc]
            assert error or found == IDS
            assert error or not lasting
    figures(pages=requests)


@pytest.mark.parametrize("kind", MARKERS)
def test_a_page_is_not_a_bucket_without_crashes(place: Place, kind: Kind) -> None:
    with open_storage(place.uri(place.server.new_bucket())) as storage:
        assert list(storage.new_crashes(kind=kind)) == []
        place.proxy.fail(Replies(PAGES["a page"]), "list-type")
        with pytest.raises(StorageUnavailable, match="not that of an S3 server"):
            list(storage.new_crashes(kind=kind))


def test_behind_a_proxy_that_weakens_etags_all_goes_on(place: Place) -> None:
    with open_storage(place.uri(place.server.new_bucket())) as storage:
        place.proxy.weakens = True
        storage.save_crash(crash_of(LARGE))
        assert read(storage) == LARGE
        storage.save_keeping_dumps(crash_of({RAW: b'{"new": true}'}))
        storage.remove_loaded(storage.load_crash(CRASH_ID))
        storage.save_crash(crash_of(contents()))
        storage.remove(CRASH_ID)
        assert not storage.has_crash(CRASH_ID)


# Names


@on_both_kinds
@pytest.mark.parametrize("name", ["SlowDown", pytest.param("InternalError", marks=slow)])
@pytest.mark.parametrize("size", [10, pytest.param(2 * PART_SIZE, marks=slow)])
def test_the_name_of_a_dump_is_not_taken_for_what_the_server_says(
    place: Place, figures: Figures, name: str, size: int
) -> None:
    """Whoever sends a crash names its dumps, and the answers of servers repeat the keys."""
    crash: Contents = {RAW: b"{}", (Kind.DUMP, name): bytes(size)}
    with open_storage(place.server.uri(place.server.new_bucket())) as storage:
        storage.save_crash(crash_of(crash))
        assert read(storage) == crash
        storage.save_crash(crash_of(contents()))
        assert read(storage) == contents()
        storage.save_crash(crash_of(crash))
        storage.remove(CRASH_ID)
        assert not storage.has_crash(CRASH_ID)
    figures(crashes=2)
