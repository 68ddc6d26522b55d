# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Errors: one line that names the store and the crash, and groups of them."""

import importlib
import pickle
import pkgutil
import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import crashmover
from crashmover import errors as errors_module
from crashmover.cli.exit_codes import ExitCode, of_error
from crashmover.errors import (
    CorruptCrash,
    CrashArchived,
    CrashChanged,
    CrashConflict,
    CrashExists,
    CrashIDNotFound,
    CrashIdsFailedToPublish,
    CrashMoverError,
    DumpNotFound,
    InvalidConfig,
    InvalidCrashID,
    InvalidDumpName,
    InvalidURI,
    MissingExtra,
    NotTwoStores,
    PolyCrashStorageError,
    QueueError,
    QueueUnavailable,
    StorageDenied,
    StorageError,
    StorageUnavailable,
    WorkerKilled,
    describe,
    masked,
)

ID = "0bba929f-8721-460c-dead-a43c22071025"

DOWN = StorageUnavailable("it does not answer", crash_id=ID, uri="s3://a")
DENIED = StorageDenied("it refuses us", crash_id=ID, uri="s3://b")
CORRUPT = CorruptCrash("raw_crash is not JSON", crash_id=ID, uri="fs:///c")

quick = settings(deadline=None, max_examples=100)


# The hierarchy


@pytest.mark.parametrize(
    ("error", "parents"),
    [
        (InvalidCrashID, (CrashMoverError, ValueError)),
        (InvalidDumpName, (CrashMoverError, ValueError)),
        (InvalidURI, (CrashMoverError, ValueError)),
        (InvalidConfig, (CrashMoverError, ValueError)),
        (MissingExtra, (CrashMoverError,)),
        (StorageError, (CrashMoverError,)),
        (CrashIDNotFound, (StorageError,)),
        (DumpNotFound, (CrashIDNotFound,)),
        (CrashConflict, (StorageError,)),
        (CorruptCrash, (StorageError,)),
        (StorageDenied, (StorageError,)),
        (StorageUnavailable, (StorageError,)),
        (PolyCrashStorageError, (StorageError, ExceptionGroup)),
        (QueueError, (CrashMoverError,)),
        (QueueUnavailable, (QueueError,)),
        (CrashIdsFailedToPublish, (QueueError,)),
    ],
)
def test_each_error_can_be_caught_as_what_it_is_a_kind_of(
    error: type[Exception], parents: tuple[type[Exception], ...]
) -> None:
    assert all(issubclass(error, parent) for parent in parents)


EXIT_CODES = {
    StorageError("full"): ExitCode.FAILED,
    CrashConflict("differs"): ExitCode.FAILED,
    CrashChanged(ID): ExitCode.FAILED,
    CrashArchived("archived"): ExitCode.FAILED,
    CorruptCrash("damaged"): ExitCode.FAILED,
    CrashExists(ID): ExitCode.FAILED,
    CrashIDNotFound(ID): ExitCode.NOT_FOUND,
    DumpNotFound(ID): ExitCode.NOT_FOUND,
    StorageDenied("refuses"): ExitCode.UNAVAILABLE,
    StorageUnavailable("down"): ExitCode.UNAVAILABLE,
    PolyCrashStorageError([DOWN, DENIED]): ExitCode.UNAVAILABLE,
    QueueError("broken"): ExitCode.UNAVAILABLE,
    QueueUnavailable("down"): ExitCode.UNAVAILABLE,
    CrashIdsFailedToPublish([ID]): ExitCode.FAILED,
    InvalidCrashID("x"): ExitCode.USAGE,
    InvalidDumpName("x", "bad"): ExitCode.USAGE,
    InvalidURI("bad"): ExitCode.USAGE,
    InvalidConfig("bad"): ExitCode.USAGE,
    MissingExtra("install it"): ExitCode.USAGE,
    NotTwoStores("one"): ExitCode.USAGE,
    WorkerKilled("killed"): ExitCode.FAILED,
}
"""One of each kind."""

NAME = re.compile(r"[A-Z]\w+")


def all_below(kind: type[Exception]) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        yield child
        yield from all_below(child)


def own_errors() -> dict[type[Exception], str]:
    """Every error that any module of the package raises on purpose, and its module."""
    for module in pkgutil.walk_packages(crashmover.__path__, "crashmover."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = {each: each.__module__ for each in all_below(CrashMoverError)}
    return {each: name for each, name in found.items() if name.startswith("crashmover.")}


def drawn() -> dict[str, str]:
    """The names in the drawing, and the name that each hangs on."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    drawing = (errors_module.__doc__ or "").partition("::\n")[2].partition("\n\nThe text")[0]
    for line in filter(None, map(str.rstrip, drawing.splitlines())):
        names = NAME.findall(re.split(r"  +(?![│├└ ])[^A-Z│├└]", line.rstrip())[0])
        at = line.index(names[0])
        above = [each for each in above if each[0] < at]
        parents |= dict.fromkeys(names, above[-1][1] if above else "")
        above.append((at, names[0]))
    return parents


def test_every_error_is_in_the_drawing_where_it_belongs() -> None:
    there = {each for each, module in own_errors().items() if module == errors_module.__name__}
    there |= {CrashMoverError}
    assert set(drawn()) == {each.__name__ for each in there}
    for each in there - {CrashMoverError}:
        assert drawn()[each.__name__] in {base.__name__ for base in each.__bases__}


def test_every_error_has_an_exit_code_and_so_has_what_a_store_makes_of_it() -> None:
    assert {type(each) for each in EXIT_CODES} == {
        each for each, module in own_errors().items() if module == errors_module.__name__
    }
    assert {each: of_error(each) for each in EXIT_CODES} == EXIT_CODES
    for each, module in own_errors().items():  # a refinement of one that is drawn
        assert module == errors_module.__name__ or issubclass(each, StorageError | QueueError)


def test_only_what_may_pass_is_tried_again() -> None:
    found = {type(each) for each in EXIT_CODES if each.is_retryable}
    assert found == {StorageUnavailable, QueueUnavailable, PolyCrashStorageError}
    marked = [each for each in own_errors() if "is_retryable" in vars(each)]
    assert set(marked) == found, "a refinement is tried again as the error that is drawn"


@pytest.mark.parametrize("error", [StorageDenied, StorageUnavailable, CorruptCrash])
def test_a_store_that_is_down_or_damaged_never_passes_for_a_missing_crash(
    error: type[Exception],
) -> None:
    assert not issubclass(error, CrashIDNotFound)


# Texts


@pytest.mark.parametrize(
    "kind", [StorageError, CrashConflict, CorruptCrash, StorageDenied, StorageUnavailable]
)
def test_an_error_of_a_store_names_the_store_the_crash_and_the_reason(
    kind: type[StorageError],
) -> None:
    error = kind("no space left", crash_id=ID, uri="fs:///a")
    assert str(error) == f"fs:///a: {ID}: no space left"
    assert error.brief() == "fs:///a: no space left"
    assert (error.uri, error.crash_id, error.reason) == ("fs:///a", ID, "no space left")


def test_an_error_of_a_store_leaves_out_what_it_is_not_about() -> None:
    assert str(StorageError("it is full")) == "it is full"
    assert str(StorageError("it is full", uri="fs:///a")) == "fs:///a: it is full"
    assert str(StorageError("it is full", crash_id=ID)) == f"{ID}: it is full"


def test_a_crash_or_a_dump_that_is_not_there_is_named_with_its_store() -> None:
    assert str(CrashIDNotFound(ID, uri="fs:///a")) == f"fs:///a: {ID}: no such crash"
    missing = DumpNotFound(ID, uri="fs:///a", reason="no dump memory_report")
    assert str(missing) == f"fs:///a: {ID}: no dump memory_report"


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "\x1b[2J", "x" * 10_000, "\n" * 10_000, None, 7])
def test_what_a_stranger_sent_is_shown_escaped_and_never_at_length(value: object) -> None:
    for error in (InvalidCrashID(value), InvalidDumpName(value, "why")):
        assert str(error).isprintable()
        assert len(str(error)) < 150


# What is said, but takes seconds for a thousand colons.
USER_AND_PASSWORD = re.compile(r"[^\s'\"(@]+:(?!/)[^\s'\"(]*@")


@quick
@given(st.text("a:@/ '\"(\n", max_size=20))
@example("a:b@c:d@e f:g@")
@example("a@b:@")
@example("::@")
@example("a:/@b:c")
def test_a_user_and_a_password_are_masked_wherever_they_are(text: str) -> None:
    others = re.compile(r":/|[?&]")  # which other patterns are for
    expected = USER_AND_PASSWORD.sub("***@", text)
    assert masked(text) == expected or others.search(text)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", [":", "a:", ":@", "a://", "://a:", "?a=", "&", "(:", "x@"])
def test_what_a_stranger_sent_takes_no_time_to_be_masked(text: str) -> None:
    """A queue may hold thousands of these, of which each took seconds once."""
    for _ in range(200):
        InvalidCrashID(text * 1000)


def test_ids_that_were_not_published_are_counted_and_kept() -> None:
    error = CrashIdsFailedToPublish((ID, ID))
    assert str(error) == "2 crash ids were not published"
    assert error.crash_ids == [ID, ID]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DOWN, f"s3://a: {ID}: it does not answer"),
        (InvalidURI("malformed"), "malformed"),
        (ValueError("bad value"), "ValueError: bad value"),
        (KeyError("x"), "KeyError: 'x'"),
        (TimeoutError(), "TimeoutError"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_exception_is_described_by_its_text_or_its_type(
    error: BaseException, text: str
) -> None:
    assert describe(error) == text


def test_an_exception_of_several_lines_is_described_in_one() -> None:
    error = RuntimeError("it failed\n  HINT: try\r\nagain")
    assert len(describe(error).splitlines()) == 1
    assert len(str(PolyCrashStorageError([DOWN, error], crash_id=ID)).splitlines()) == 1


# Groups


def test_a_group_names_the_crash_once_and_what_happened_at_each_store() -> None:
    error = PolyCrashStorageError([DOWN, DENIED], crash_id=ID)
    assert str(error) == f"{ID}: s3://a: it does not answer; s3://b: it refuses us"
    assert error.brief() == "s3://a: it does not answer; s3://b: it refuses us"
    assert (error.crash_id, error.uri) == (ID, None)


def test_a_group_need_not_be_about_a_crash() -> None:
    assert str(PolyCrashStorageError([StorageError("full", uri="fs:///a")])) == "fs:///a: full"


def test_a_group_may_hold_any_exception_and_other_groups() -> None:
    inner = PolyCrashStorageError([DENIED, TypeError("a bug")], crash_id=ID)
    error = PolyCrashStorageError([DOWN, inner], crash_id=ID)
    assert error.exceptions == (DOWN, inner)
    assert str(error) == (
        f"{ID}: s3://a: it does not answer; s3://b: it refuses us; TypeError: a bug"
    )


def test_a_group_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError):
        PolyCrashStorageError([])


def test_each_part_of_a_group_can_be_handled_by_its_type() -> None:
    inner = PolyCrashStorageError([DENIED, CORRUPT], crash_id=ID)
    handled: list[Exception] = []
    with pytest.raises(PolyCrashStorageError) as rest:
        try:
            raise PolyCrashStorageError([DOWN, inner], crash_id=ID)
        except* StorageUnavailable as group:
            handled += group.exceptions
        except* StorageDenied as group:
            [denied] = group.exceptions
            assert isinstance(denied, PolyCrashStorageError)
            handled += denied.exceptions
    assert handled == [DOWN, DENIED]
    [left] = rest.value.exceptions
    assert isinstance(left, PolyCrashStorageError)
    assert left.exceptions == (CORRUPT,)


def test_a_group_is_itself_an_error_of_a_store() -> None:
    with pytest.raises(StorageError, match="it does not answer"):
        raise PolyCrashStorageError([DOWN])


def test_a_group_is_split_into_groups_of_the_same_crash() -> None:
    error = PolyCrashStorageError([DOWN, DENIED, CORRUPT], crash_id=ID)
    down, rest = error.split(StorageUnavailable)
    assert isinstance(down, PolyCrashStorageError)
    assert isinstance(rest, PolyCrashStorageError)
    assert (down.crash_id, rest.crash_id) == (ID, ID)
    assert (down.exceptions, rest.exceptions) == ((DOWN,), (DENIED, CORRUPT))
    assert str(down) == f"{ID}: s3://a: it does not answer"
    assert str(rest) == f"{ID}: s3://b: it refuses us; fs:///c: raw_crash is not JSON"


def test_a_group_is_not_split_where_all_or_nothing_matches() -> None:
    error = PolyCrashStorageError([DOWN, DENIED], crash_id=ID)
    everything, nothing = error.split(StorageError)
    assert (everything, nothing) == (error, None)
    nothing, rest = error.split(CorruptCrash)
    assert nothing is None
    assert isinstance(rest, PolyCrashStorageError)
    assert (rest.exceptions, str(rest)) == (error.exceptions, str(error))


def test_a_nested_group_is_split_to_its_depth() -> None:
    inner = PolyCrashStorageError([DOWN, DENIED], crash_id=ID)
    down = PolyCrashStorageError([inner, CORRUPT], crash_id=ID).subgroup(StorageUnavailable)
    assert isinstance(down, PolyCrashStorageError)
    [left] = down.exceptions
    assert isinstance(left, PolyCrashStorageError)
    assert left.exceptions == (DOWN,)
    assert str(down) == f"{ID}: s3://a: it does not answer"


def test_a_part_of_a_group_remembers_where_it_came_from() -> None:
    cause = OSError("reset")
    try:
        raise PolyCrashStorageError([DOWN, DENIED], crash_id=ID) from cause
    except PolyCrashStorageError as error:
        error.add_note("while copying")
        down = error.subgroup(StorageUnavailable)
    assert down is not None
    assert down.__cause__ is cause
    assert down.__notes__ == ["while copying"]
    assert down.__traceback__ is not None


def test_derive_makes_a_group_of_the_same_crash() -> None:
    derived = PolyCrashStorageError([DOWN], crash_id=ID).derive([DENIED])
    assert derived.exceptions == (DENIED,)
    assert str(derived) == f"{ID}: s3://b: it refuses us"


errors = st.recursive(
    st.sampled_from([DOWN, DENIED, CORRUPT, ValueError("x"), TimeoutError()]),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(PolyCrashStorageError),
    max_leaves=10,
)


@quick
@given(st.lists(errors, min_size=1, max_size=4))
def test_no_exception_is_lost_when_a_group_is_split(children: list[Exception]) -> None:
    def leaves(error: BaseException | None) -> list[BaseException]:
        if isinstance(error, PolyCrashStorageError):
            return [leaf for child in error.exceptions for leaf in leaves(child)]
        return [error] if error else []

    error = PolyCrashStorageError(children, crash_id=ID)
    down, rest = error.split(lambda one: isinstance(one, StorageUnavailable))
    assert set(map(id, leaves(down))) | set(map(id, leaves(rest))) == set(map(id, leaves(error)))
    assert len(leaves(down)) + len(leaves(rest)) == len(leaves(error))
    assert str(error).isprintable()


# From one process to another


def through_a_pipe(error: Exception) -> Exception:
    passed = pickle.loads(pickle.dumps(error))
    assert isinstance(passed, Exception)
    return passed


KINDS = [StorageError, CrashConflict, CorruptCrash, StorageDenied, StorageUnavailable]


@pytest.mark.parametrize(
    "error",
    [
        *(kind("no space left", crash_id=ID, uri="fs:///a") for kind in KINDS),
        *(kind("no space left") for kind in KINDS),
        CrashIDNotFound(ID, uri="fs:///a"),
        CrashIDNotFound(ID, reason="no processed_crash"),
        DumpNotFound(ID, uri="fs:///a", reason="no dump memory_report"),
        PolyCrashStorageError([DOWN, DENIED], crash_id=ID),
        PolyCrashStorageError([DOWN, PolyCrashStorageError([CORRUPT], crash_id=ID)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_a_store_says_the_same_in_another_process(error: StorageError) -> None:
    passed = through_a_pipe(error)
    assert type(passed) is type(error)
    assert isinstance(passed, StorageError)
    assert (str(passed), passed.brief()) == (str(error), error.brief())
    assert (passed.crash_id, passed.uri) == (error.crash_id, error.uri)
    assert passed.reason == error.reason


def test_a_group_is_still_a_group_in_another_process() -> None:
    passed = through_a_pipe(PolyCrashStorageError([DOWN, DENIED], crash_id=ID))
    assert isinstance(passed, PolyCrashStorageError)
    assert list(map(str, passed.exceptions)) == [str(DOWN), str(DENIED)]
    down, rest = passed.split(StorageUnavailable)
    assert (str(down), str(rest)) == (f"{ID}: {DOWN.brief()}", f"{ID}: {DENIED.brief()}")
