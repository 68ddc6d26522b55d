# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover doctor``: a line for each store and queue, and nothing left behind."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crashmover import open_queue
from tests.cli_helpers import Argument, assert_refused, put, run, sample, snapshot, start, stored
from tests.conftest import UseAWS, on_buckets
from tests.s3_proxy import Hang, Says, behind_proxy
from tests.servers import buckets, pubsub
from tests.servers.buckets import BucketServer
from tests.servers.database import Database
from tests.servers.postgresql import PostgreSQL
from tests.servers.pubsub import PubSub
from tests.servers.s3 import Bucket, S3Server

Configure = Callable[[str], Path]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return put(tmp_path / "store", sample(1), sample(2))


@pytest.fixture
def queue(tmp_path: Path) -> str:
    uri = f"sqlite://{tmp_path}/queue.db"
    with open_queue(uri) as opened:
        opened.create()
    return uri


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return write


def diagnosed(*args: Argument, **env: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and what is said of each."""
    where = list(args)
    where.insert(where.index("doctor") + 1, "--json")
    result = run(*where, env=env)
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


# What is said


def test_what_is_named_is_tried_and_nothing_is_left(
    store: Path, queue: str, tmp_path: Path
) -> None:
    before = snapshot(store)
    new = tmp_path / "not" / "yet"
    result = run("doctor", "-s", store, "-d", new, "-q", queue)
    assert result.stdout.splitlines() == [
        f"ok      store  fs://{store}  read",
        f"ok      store  fs://{new}  read, write, clock right",
        f"ok      queue  {queue}  priority, standard, reprocessing",
    ]
    assert (result.exit_code, result.stderr) == (0, "checked 3, warnings 0, failed 0\n")
    assert snapshot(store) == before
    assert not new.parent.exists()


def test_without_names_all_that_is_configured_is_tried(
    store: Path, tmp_path: Path, configure: Configure
) -> None:
    config = configure(
        f'[storage]\nsafe = ["{tmp_path}/mirror", "cold"]\ncold = "{store}"\n'
        f'twin = "{tmp_path}/mirror"\n'
        f'[queue]\nprod = "sqlite:{tmp_path}/none.db"\n'
    )
    there = stored(store)
    result = run("--config", config, "doctor")
    assert result.stdout.splitlines() == [
        f"ok      store  cold  fs://{store}  read, write, clock right",
        f"ok      store  safe  fs://{tmp_path}/mirror  read, write, clock right",
        f"ok      store  safe  fs://{store}  read, write, clock right",
        f"ok      store  twin  fs://{tmp_path}/mirror  read, write, clock right",
        f"failed  queue  prod  sqlite://{tmp_path}/none.db  no such queue; --create makes it",
    ]
    assert (result.exit_code, result.stderr) == (4, "checked 5, warnings 0, failed 1\n")
    assert stored(store) == there
    assert not (tmp_path / "mirror").exists()


def test_a_name_stands_for_all_its_stores(
    store: Path, tmp_path: Path, configure: Configure
) -> None:
    config = configure(f'[storage]\nboth = ["{store}", "{tmp_path}/none"]\n')
    code, [first, second] = diagnosed("--config", config, "doctor", "-s", "both")
    assert code == 4
    assert (first["name"], first["verdict"], first["error"]) == ("both", "ok", None)
    assert (second["name"], second["verdict"]) == ("both", "failed")
    assert second["error"].endswith("cannot be read: No such file or directory")


def test_the_environment_is_tried_with_the_configuration_and_not_with_what_is_typed(
    store: Path, queue: str, tmp_path: Path, configure: Configure
) -> None:
    config = configure(f'[storage]\ncold = "{store}"\nwarm = "{tmp_path}/warm"\n')
    env = {
        "CRASHMOVER_CONFIG": str(config),
        "CRASHMOVER_SOURCE": f"cold {store}",
        "CRASHMOVER_QUEUE": queue,
    }
    code, found = diagnosed("doctor", **env)
    assert code == 0
    assert [(each["name"], each["found"]) for each in found] == [
        ("cold", ["read"]),
        (None, ["read"]),
        (None, ["priority", "standard", "reprocessing"]),
        ("warm", ["read", "write", "clock right"]),
    ]
    code, found = diagnosed("doctor", "-d", "warm", **env)
    assert (code, [each["name"] for each in found]) == (0, ["warm"])


def test_everything_is_there_as_json(store: Path) -> None:
    code, [found] = diagnosed("doctor", "-d", store)
    clock = found.pop("clock")
    assert isinstance(clock, float) and abs(clock) < 60
    assert (code, found) == (
        0,
        {
            "kind": "store",
            "name": None,
            "uri": f"fs://{store}",
            "verdict": "ok",
            "found": ["read", "write", "clock right"],
            "warnings": [],
            "error": None,
        },
    )


def test_without_writing_nothing_is_touched(store: Path) -> None:
    before = snapshot(store)
    result = run("doctor", "-d", store, "--no-write")
    assert result.stdout == f"ok      store  fs://{store}  read, write not tried\n"
    assert snapshot(store) == before


# What is wrong


def test_what_is_configured_wrongly_is_said_on_its_line(store: Path, configure: Configure) -> None:
    config = configure(
        f'[storage]\na = "nosuch://me:secret@host"\nb = ["b"]\nc = "{store}"\n'
        '[queue]\nd = ["memory:", "memory:"]\n'
    )
    result = run("--config", config, "doctor", "--no-write")
    a, b, c, d = result.stdout.splitlines()
    assert a.startswith("failed  store  a  nosuch://***@host  unknown scheme 'nosuch'")
    assert b == f"failed  store  b  {config}: storage.b contains itself"
    assert c == f"ok      store  c  fs://{store}  read, write not tried"
    assert d == f"failed  queue  d  {config}: queue.d must be one queue"
    assert result.exit_code == 4


def test_what_is_typed_wrongly_is_refused_before_anything_is_tried(
    store: Path, tmp_path: Path, configure: Configure
) -> None:
    config = configure('[storage]\nempty = ["nosuch:"]\n')
    for args in (["-s", "nosuch://host"], ["-d", "unknown"], ["-s", "empty"], ["-q", "nosuch:"]):
        result = run("--config", config, "doctor", "-d", tmp_path / "new", *args)
        assert_refused(result, 2)
    for seconds in ("0", "-1", "inf", "soon"):
        assert_refused(run("doctor", "-s", store, "--timeout", seconds), 2, "--timeout")
    assert_refused(run("doctor", env={"CRASHMOVER_CONFIG": str(tmp_path / "no")}), 2, "no such")


def test_without_anything_to_try_it_says_where_to_name_it(tmp_path: Path) -> None:
    result = run("doctor", env={"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)})
    assert_refused(result, 2, "nothing is named", f"{tmp_path}/crashmover/config.toml")


def test_a_role_that_may_only_read_is_a_warning_unless_it_is_to_save(
    postgresql_server: PostgreSQL, store: Path, configure: Configure
) -> None:
    schema = postgresql_server.new_name()
    with postgresql_server.connect(options=f"-c search_path={schema}") as connection:
        assert_read_only_is_found(Database(postgresql_server, schema, connection), store, configure)


def assert_read_only_is_found(database: Database, store: Path, configure: Configure) -> None:
    assert run("copy", "-s", store, "-d", database.uri).exit_code == 0
    role = database.role()
    database.run(f"GRANT USAGE ON SCHEMA {database.schema} TO {role}")
    database.run(f"GRANT SELECT ON crash_parts TO {role}")
    uri = database.uri_of(role)
    why = f'no right to SELECT, INSERT and DELETE in "{database.schema}".crash_parts'
    config = configure(f"[storage]\nprod = {json.dumps(uri)}\n")
    code, [found] = diagnosed("--config", config, "doctor")
    assert (code, found["warnings"]) == (0, [f"cannot be saved to: {why}"])
    assert found["found"] == ["read", "clock right"]
    for option, expected in (("-s", 0), ("-d", 4)):
        code, [found] = diagnosed("--config", config, "doctor", option, "prod")
        assert (code, found["warnings"]) == (expected, [])
        assert found["error"] == (None if option == "-s" else f"{found['uri']}: {why}")
    assert database.server.password not in found["uri"] and ":***@" in found["uri"]
    assert database.rows("SELECT count(DISTINCT crash_id) FROM crash_parts") == [(2,)]


@on_buckets("s3_signed", "fake_gcs")
def test_a_dead_store_does_not_keep_the_others_from_being_told(
    bucket_server: BucketServer, store: Path
) -> None:
    bucket = buckets.Bucket(bucket_server)
    with behind_proxy(bucket_server) as place:
        place.proxy.fail(Hang())
        hangs = place.uri(bucket.name)
        result = run("doctor", "-d", hangs, "-d", bucket.uri(), "-d", store, "--timeout", "1.5")
    first, second, third = result.stdout.splitlines()
    assert first.startswith(f"failed  store  {hangs[:2]}://{bucket.name}?")
    assert first.endswith("  no answer in 1.5 s")
    assert second.startswith("ok ") and third.startswith("ok ")
    assert result.exit_code == 4
    assert bucket.objects() == {}


def test_a_bucket_whose_clock_is_not_ours_is_a_warning_and_one_that_refuses_us_has_failed(
    s3_strict: S3Server, aws: UseAWS
) -> None:
    bucket = Bucket(aws(s3_strict))
    with behind_proxy(s3_strict) as place:
        place.proxy.said = {"Date": "Thu, 26 Nov 2020 01:16:41 GMT"}
        code, [found] = diagnosed("doctor", "-d", place.uri(bucket.name))
        assert (code, found["verdict"], found["found"]) == (0, "warn", ["read", "write"])
        assert found["warnings"][0].endswith(" behind this machine's")
        place.proxy.fail(Says(403, "RequestTimeTooSkewed"))
        code, [found] = diagnosed("doctor", "-d", place.uri(bucket.name))
        assert code == 4
        assert found["error"].endswith("the clock here and the clock there differ too much")
        assert found["warnings"][0].endswith(" behind this machine's")


@pytest.mark.parametrize("pubsub_server", pubsub.servers()[:1], indirect=True)
def test_queues_are_tried_before_the_first_crash_id_is_lost(
    pubsub_server: PubSub, use_pubsub: Callable[[PubSub], None]
) -> None:
    use_pubsub(pubsub_server)
    uri = pubsub_server.uri()
    prefix = uri.rpartition("/")[2]
    code, [found] = diagnosed("doctor", "-q", uri)
    assert code == 4
    assert f"there is no topic {prefix}-standard-topic" in found["error"]
    assert run("queue-publish", "-q", uri, "--create", sample(1).crash_id).exit_code == 0
    code, [found] = diagnosed("doctor", "-q", uri)
    assert (code, found["verdict"]) == (0, "ok")
    assert run("queue-pull", "-q", uri, "--limit", "1").stdout.split() == [sample(1).crash_id]


# Its end


def test_a_reader_that_leaves_ends_it_and_every_probe_is_taken_away(tmp_path: Path) -> None:
    stores = [argument for n in range(8) for argument in ("-d", tmp_path / f"store-{n}")]
    with start("doctor", *stores) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE
    assert os.listdir(tmp_path) == []
