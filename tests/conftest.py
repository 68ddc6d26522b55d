# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Fixtures that many tests share: the servers, each started when it is first needed."""

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import NoReturn

import pytest
from _pytest.mark import ParameterSet

from crashmover.external.bucket import rounds
from crashmover.external.fs.mounts import mounts_of
from crashmover.retry import RetryPolicy
from tests import grounds, odd_mounts
from tests.mounting import CannotMount, own_mounts
from tests.s3_proxy import use_retry
from tests.servers import KINDS
from tests.servers.buckets import BucketServer
from tests.servers.database import Database, schema_on
from tests.servers.gcs import FakeGCS
from tests.servers.postgresql import PostgreSQL, installed
from tests.servers.process import MissingServer
from tests.servers.pubsub import PubSub
from tests.servers.s3 import Ministack, Moto, Rclone, S3Server
from tests.strict_gcs import StrictGCS, strict_gcs

BACKEND = Path(__file__).parent.parent / "examples" / "backend"
"""The sources of the example of a backend."""

DISKS = {"ext4": "e2fsprogs", "xfs": "xfsprogs"}
"""The kinds of disks that slow tests make, and the package that makes them."""

TOOLS = {
    "atheris": "pip install atheris, on Linux on x86_64",
    "bindfs": "apt install bindfs, and be root, on Linux",
    "btrfs": "apt install btrfs-progs, and be root, on Linux",
    "devices": "be root, on Linux",
    "exfat": "apt install exfat-fuse exfatprogs, and be root, on Linux",
    "moto": "pip install moto[s3] flask flask-cors",
    "ntfs-3g": "apt install ntfs-3g, and be root, on Linux",
    "overlay": "be root, on Linux",
    "pgbouncer": "apt install pgbouncer",
    "rclone-mount": "apt install fuse3, and be root, on Linux",
    "setpriv": "be root, on Linux; apt install util-linux",
    "sshfs": "apt install sshfs openssh-sftp-server, and be root, on Linux",
    "strace": "apt install strace",
    "tmpfs": "be root, on Linux",
    "users": "be root, on Linux, with setpriv of util-linux",
}
"""What else slow tests need, and how to get it."""

_WITHOUT = "CRASHMOVER_TEST_WITHOUT"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without",
        action="append",
        default=[],
        metavar="NAME",
        help=f"leave out the tests that need this, of {', '.join([*KINDS, *DISKS, *TOOLS])}; may"
        f" be repeated; also {_WITHOUT}, separated by commas",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Fail the whole run where a server is missing: tests that are passed over in silence
    look like tests that passed."""
    # What tests mount is never left behind.
    own_mounts()
    # A shell, or nohup, lets what it starts ignore these, and so all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Stores in memory are warned of, and most tests are not about that.
    if any(mount.risk() for mount in islice(mounts_of(Path(tempfile.gettempdir())), 1)):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/var/tmp")
    unknown = _without(config) - KINDS.keys() - set(DISKS) - set(TOOLS)
    if unknown:
        raise pytest.UsageError(f"no such server: {', '.join(sorted(unknown))}")
    if hasattr(config, "workerinput"):
        return
    found = []
    for kind in KINDS.values():
        if kind.name in _without(config):
            found.append(f"without {kind.name}")
            continue
        try:
            found.append(kind.version())
        except MissingServer as error:
            raise pytest.UsageError(
                f"{kind.name} cannot be started, {error} is missing: {kind.install};"
                f" or leave its tests out: --without {kind.name}"
            ) from None
    config.stash[_FOUND] = f"servers: {', '.join(found)}\n{grounds_here(config)}"


_FOUND = pytest.StashKey[str]()


def grounds_here(config: pytest.Config) -> str:
    """Return which grounds the tests run over, and why not over the others."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for ground in grounds.FILE_SYSTEMS:
        left_out = [f"without {name}" for name in ground.needs if name in _without(config)]
        names[", ".join(left_out) or ground.lacking()].append(ground.name)
    here = ", ".join(names.pop("", ["none"]))
    not_here = "; ".join(f"{', '.join(each)} ({why})" for why, each in names.items())
    return f"grounds: {here}" + (f"; not here: {not_here}" if not_here else "")


def pytest_report_header(config: pytest.Config) -> str:
    return config.stash.get(_FOUND, "")


def pytest_sessionstart(session: pytest.Session) -> None:
    """The header is not shown when pytest is told to be quiet; the servers are."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and reporter.verbosity < 0 and _FOUND in session.config.stash:
        reporter.write_line(session.config.stash[_FOUND])


@pytest.fixture(params=["AHEAD-14", "BEHIND+12"])
def far_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time zone of a process: one of two, of which at any time one has another day than
    UTC has."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


def mostly_slow(values: Iterable[object], quick: Container[object]) -> list[ParameterSet]:
    """Return parameters of tests, of which all but a few are slow."""
    return [
        pytest.param(value, marks=() if value in quick else pytest.mark.slow) for value in values
    ]


Figures = Callable[..., None]


@pytest.fixture(autouse=True, scope="session")
def one_by_one() -> Iterator[None]:
    """The requests of a crash go one after the other, however slow a server is at this moment: so
    tests can count them, and hold them one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "FAR_AWAY", math.inf)
        yield


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to S3 are repeated as often as ever, and sooner."""
    use_retry(monkeypatch, RetryPolicy(wait=0.02))


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests of a crash go together, as if each server were far away."""
    monkeypatch.setattr(rounds, "FAR_AWAY", 0)


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Figures:
    """Take note of what a test has counted, by name: it is printed at the end of the run."""

    return lambda **counted: record_property(_FIGURES, counted)


_FIGURES = "figures"
_GROUND = "ground"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have counted, each with all of its parameters; those of a file over a ground
    together."""
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for report in terminalreporter.getreports("passed"):
        if report.when != "call":
            continue
        test = report.nodeid.partition("[")[0]
        for name, value in report.user_properties:
            if name == _GROUND:
                test = f"{test.partition('::')[0]} on {value}"
                sums[test]["tests_passed"] += 1
        for name, value in report.user_properties:
            if name == _FIGURES:
                sums[test].update(value)
    if sums:
        terminalreporter.section("what was counted")
    for test, counter in sorted(sums.items()):
        words = [f"{name.replace('_', ' ')} {count:,}" for name, count in sorted(counter.items())]
        terminalreporter.write_line(f"{test}:\n    {', '.join(words)}")


def _without(config: pytest.Config) -> set[str]:
    names = [*config.getoption("--without"), *os.environ.get(_WITHOUT, "").split(",")]
    return {name.strip() for name in names} - {""}


def wanted(request: pytest.FixtureRequest, name: str) -> None:
    """Leave out a test that needs a server or disk which somebody has opted out of by name."""
    if name in _without(request.config):
        pytest.skip(f"opted out of {name}")


def missing(name: str, why: object) -> NoReturn:
    """Fail a test that needs one of `TOOLS`: passed over in silence, it would look as if it had
    passed."""
    pytest.fail(
        f"there is no {name} here: {why}; {TOOLS[name]}; or leave its tests out: --without {name}",
        pytrace=False,
    )


@pytest.fixture
def lend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[odd_mounts.Lend]:
    """Mount a kind, with options, until the test ends."""
    with ExitStack() as stack:

        def lend(kind: str, *options: str) -> Path:
            tool = odd_mounts.TOOL_OF.get(kind, kind)
            wanted(request, tool)
            base = Path(tempfile.mkdtemp(dir=tmp_path))
            try:
                if why := own_mounts():
                    raise CannotMount(why)
                return stack.enter_context(odd_mounts.mount(kind, base, *options))
            except CannotMount as error:
                missing(tool, error)

        yield lend


@pytest.fixture(scope="session")
def lender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grounds.Lender]:
    """Mounts grounds, each once."""
    with grounds.Lender(tmp_path_factory.mktemp) as lender:
        yield lender


@pytest.fixture
def ground(request: pytest.FixtureRequest) -> Path:
    """A directory on the ground that the test is parametrized by; where that is None, pytest's."""
    if request.param is None:
        return Path(request.getfixturevalue("tmp_path"))
    return directory_on(request.param, request)


def directory_on(ground: grounds.FileSystem, request: pytest.FixtureRequest) -> Path:
    """Lend a fixture a new directory on a ground, until the test ends.

    A quick test that cannot have one is passed over, which the header of the run says; a slow test
    fails.
    """
    for name in ground.needs:
        wanted(request, name)
    node = request.node
    for test, reason in ground.not_kept.items():
        if node.name.startswith(test):
            pytest.skip(f"not on {ground.name}: {reason}")
    try:
        lent = request.getfixturevalue("lender").lend(ground)
        directory: Path = lent.__enter__()
    except CannotMount as error:
        if node.get_closest_marker("slow"):
            missing(ground.needs[0], error)
        pytest.skip(f"{ground.name} is not here: {error}")
    request.addfinalizer(lambda: lent.__exit__(None, None, None))
    node.user_properties.append((_GROUND, ground.name))
    return directory


def over_grounds(*arguments: object) -> list[ParameterSet]:
    """Return the parameters of slow tests: each ground, followed by these."""
    return [
        pytest.param(
            ground,
            *arguments,
            id="-".join(map(str, [ground.name, *arguments])),
            marks=pytest.mark.slow,
        )
        for ground in grounds.FILE_SYSTEMS
    ]


@pytest.fixture(scope="session")
def backend_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the example of a backend is installed into, as pip installs a package;
    from a copy of its sources, beside which pip leaves what it makes."""
    home = tmp_path_factory.mktemp("backend")
    shutil.copytree(BACKEND, home / "sources", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-compile", "--target", str(home / "site")]
    done = subprocess.run(
        [*pip, *options, home / "sources"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return home / "site"


@pytest.fixture(scope="session")
def shared_postgresql(request: pytest.FixtureRequest) -> Iterator[PostgreSQL]:
    """A PostgreSQL server that all tests share."""
    wanted(request, "postgresql")
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def postgresql_server(shared_postgresql: PostgreSQL) -> PostgreSQL:
    """The server of the test: the shared one, unless its file says another."""
    return shared_postgresql


@pytest.fixture
def database(postgresql_server: PostgreSQL) -> Iterator[Database]:
    """A schema of its own."""
    with schema_on(postgresql_server) as database:
        yield database


def postgresql_versions() -> list[object]:
    """The first PostgreSQL that is installed; and each of the others, which are slow."""
    try:
        first, *others = installed()
    except MissingServer:
        return [None]  # the run says so
    slow = [pytest.param(each, marks=pytest.mark.slow, id=_major(each)) for each in others]
    return [pytest.param(first, id=_major(first)), *slow]


def _major(programs: Path) -> str:
    return f"PostgreSQL {installed()[programs].partition('.')[0]}"


@pytest.fixture(scope="session", params=postgresql_versions())
def each_postgresql(request: pytest.FixtureRequest) -> Iterator[PostgreSQL]:
    """A server of each PostgreSQL that is installed."""
    wanted(request, "postgresql")
    if request.param == next(iter(installed())):
        yield request.getfixturevalue("shared_postgresql")
        return
    with PostgreSQL(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def new_postgresql(request: pytest.FixtureRequest) -> Iterator[PostgreSQL]:
    """A PostgreSQL server that is not started: its data are for others to begin with."""
    wanted(request, "postgresql")
    server = PostgreSQL()
    try:
        server.prepare()
        yield server
    finally:
        server.__exit__()


@pytest.fixture
def own_postgresql(new_postgresql: PostgreSQL) -> Iterator[PostgreSQL]:
    """A PostgreSQL server for one test that stops it, or worse."""
    with PostgreSQL(copied=new_postgresql) as server:
        yield server


UseAWS = Callable[[S3Server], S3Server]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> UseAWS:
    """Put a server's credentials into the environment, and return the server."""

    def use(server: S3Server) -> S3Server:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)  # of whoever runs the tests
        for name, value in server.credentials.items():
            monkeypatch.setenv(name, value)
        return server

    return use


def server_of_buckets(request: pytest.FixtureRequest, name: str) -> BucketServer:
    """Return the server of this fixture, with its credentials in the environment."""
    server: BucketServer = request.getfixturevalue(name)
    use: UseAWS = request.getfixturevalue("aws")
    return use(server) if isinstance(server, S3Server) else server


def new_uri(request: pytest.FixtureRequest, name: str) -> str:
    """Return the URI of an empty store on the server of this fixture: a bucket, or a schema."""
    if name == "postgresql":
        database: PostgreSQL = request.getfixturevalue("postgresql_server")
        return database.uri(schema=database.new_name())
    server = server_of_buckets(request, name)
    return server.uri(server.new_bucket())


@pytest.fixture
def bucket_server(request: pytest.FixtureRequest) -> BucketServer:
    """The server whose fixture the test is parametrized by."""
    return server_of_buckets(request, request.param)


def on_buckets(*names: str, slow: Container[str] = ()) -> pytest.MarkDecorator:
    """Run a test on the bucket servers of these fixtures.

    :param slow: those on which it is slow
    """
    return pytest.mark.parametrize(
        "bucket_server",
        [pytest.param(each, marks=pytest.mark.slow if each in slow else ()) for each in names],
        indirect=True,
    )


@pytest.fixture(scope="session")
def pubsub_server(request: pytest.FixtureRequest) -> Iterator[PubSub]:
    """A Pub/Sub server: of the class that the test is parametrized by."""
    wanted(request, "pubsub")
    with request.param() as server:
        yield server


@pytest.fixture
def own_pubsub_server(request: pytest.FixtureRequest) -> Iterator[PubSub]:
    """A Pub/Sub server for one test that stops it, or worse."""
    wanted(request, "pubsub")
    with request.param() as server:
        yield server


@pytest.fixture
def use_pubsub(monkeypatch: pytest.MonkeyPatch) -> Callable[[PubSub], None]:
    """Put a Pub/Sub server's address into the environment."""
    return lambda server: monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)


@pytest.fixture(scope="session")
def s3_signed(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """An S3 server that checks signatures."""
    wanted(request, "s3-signed")
    with Rclone() as server:
        yield server


@pytest.fixture(scope="session")
def s3_strict(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """An S3 server that checks checksums, and puts objects on conditions."""
    wanted(request, "s3-strict")
    with Ministack() as server:
        yield server


@pytest.fixture(scope="session")
def s3_moto(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """An S3 server that honours some conditions, and archives objects."""
    wanted(request, "moto")
    with ExitStack() as stack:
        try:
            server = stack.enter_context(Moto())
        except MissingServer as error:
            missing("moto", error)
        yield server


@pytest.fixture
def own_s3(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """An S3 server that checks signatures, for one test that stops it, or worse."""
    wanted(request, "s3-signed")
    with Rclone() as server:
        yield server


@pytest.fixture(scope="session")
def fake_gcs(request: pytest.FixtureRequest) -> Iterator[FakeGCS]:
    """A server of Google Cloud Storage that many use, and that passes over some conditions."""
    wanted(request, "gcs")
    with FakeGCS() as server:
        yield server


@pytest.fixture
def gcs() -> Iterator[StrictGCS]:
    """A server of Google Cloud Storage that holds everything."""
    with strict_gcs() as server:
        yield server
