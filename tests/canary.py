# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A secret that must not be seen: where it is put, and how to see it."""

import base64
import json
import random
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from tests.cli_helpers import Argument, put, run, sample

CANARY = "cAnArYsEcReT0123456789cAnArY+sEcReT/0123"
"""As long as Amazon's, and with what has to be quoted in a URI."""

QUOTED = "".join(f"%{ord(char):02x}" for char in CANARY)
"""Quoted in full."""

IN_URI = CANARY.replace("+", "%2B").replace("/", "%2F")
"""As it stands in a URI."""

CRASH = sample(1)


def is_shown(text: str, secret: str = CANARY) -> bool:
    """Whether a text shows the secret, or half of it: as it is, in other letters, quoted, or in
    base 64."""
    half = secret[: len(secret) // 2]
    plain = any(half.casefold() in form.casefold() for form in (text, unquote(text)))
    return plain or any(form in text for form in _in_base64(half))


def _in_base64(secret: str) -> Iterator[str]:
    """Yield what it is in base 64, whatever stands before and behind it."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + secret.encode()).decode().rstrip("=")
        yield whole[before + 1 : -2]


@dataclass(frozen=True)
class Failing:
    """A command that must fail."""

    args: tuple[Argument, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    def shown(self, report: Path) -> str:
        """Run it; return all that it says, and its exit code."""
        result = run(*self.args, env={**self.env})
        assert result.exit_code in (1, 2, 4), (self, result.output)
        reported = report.read_text() if report.exists() else ""
        return f"{result.exit_code}\n{result.output}\n{result.stderr}\n{reported}"


class Commands:
    """Every command that takes a store or a queue.

    :param here: an empty directory
    """

    def __init__(self, here: Path) -> None:
        self.here = here
        self.report = here / "report"
        self.source = put(here / "source", CRASH)
        self.raw = here / "raw.json"
        self.raw.write_bytes(b"{}")
        self.queue = f"sqlite:{here}/queue.db"
        self._configs = 0

    def of_store(self, uri: str) -> Iterator[tuple[Argument, ...]]:
        """Yield each that takes a store."""
        out, report = self.here / "out", ("--report", self.report, "--json")
        yield "save", "-d", uri, "--raw-crash", self.raw, CRASH.crash_id
        yield "get", "-s", uri, CRASH.crash_id
        yield "get", "-s", uri, CRASH.crash_id, "--all", "-o", out
        yield "list", "-s", uri, "--bytes"
        yield "check", "-s", uri, "-d", self.source
        yield "check", "-d", uri, "-s", self.source, "--digest", "--json"
        yield "doctor", "-s", uri
        yield "doctor", "-d", uri, "--json"
        yield "remove", "-s", uri, CRASH.crash_id
        yield "remove", "-s", uri, "--since", "2026-11-01", "--until", "2026-11-30", "--json"
        yield "copy", "-s", uri, "-d", out, *report
        yield "copy", "-d", uri, "-s", self.source, *report
        yield "copy", "-d", uri, "-s", self.source, "--remove-source", "--verify", *report
        yield "queue-publish", "-s", uri, "-q", self.queue, "--since", "7d"

    def of_queue(self, uri: str) -> Iterator[tuple[Argument, ...]]:
        """Yield each that takes a queue."""
        yield "queue-pull", "-q", uri, "--wait", "0"
        yield "doctor", "-q", uri
        yield "queue-publish", "-q", uri, "--create", CRASH.crash_id
        yield "copy", "-q", uri, "-s", self.source, "-d", self.here / "out", "--wait", "0"

    def out_of_place(self, uri: str) -> Iterator[tuple[Argument, ...]]:
        """Yield some that have a URI where none belongs."""
        there = ("-s", self.source, "-d", self.here / "out")
        yield "check", *there, uri
        yield "check", *there, "--ids-from", uri
        yield "copy", uri, self.here / "out"
        yield "copy", *there, uri
        yield "copy", *there, "--ids-from", uri
        yield "copy", *there, "--report", uri
        yield "copy", *there, "--since", uri
        yield "copy", *there, "--kinds", uri
        yield "copy", *there, "--statsd", uri
        yield "get", "-s", self.source, uri
        yield "get", "-s", self.source, CRASH.crash_id, uri
        yield "list", "-s", self.source, uri
        yield "list", "-s", self.source, "--since", uri
        yield "doctor", "-s", self.source, uri
        yield "doctor", "-s", self.source, "--timeout", uri
        yield "config", uri
        yield "remove", "-s", self.source, uri
        yield "remove", "-s", self.source, "--ids-from", uri
        yield "remove", "-s", self.source, "--since", "today", "--until", uri
        yield "save", "-d", self.source, "--raw-crash", uri
        yield "save", "-d", self.source, "--raw-crash", self.raw, "--dump", uri
        yield "queue-pull", uri
        yield "queue-pull", "-q", self.queue, uri
        yield "queue-publish", uri, CRASH.crash_id
        yield "queue-publish", "-q", self.queue, uri
        yield "queue-publish", "-q", self.queue, "--to", uri, CRASH.crash_id
        yield uri, "-s", self.source
        yield "--log-format", uri, "copy", *there
        yield "--config", uri, "copy", "-s", "prod", "-d", self.here / "out"
        yield "--config", uri, "config"
        yield "--config", uri, "doctor"

    def everywhere(self, args: tuple[Argument, ...]) -> Iterator[Failing]:
        """Yield a command with its URI on the command line, in the environment, and in a
        configuration file."""
        flag, uri = args[1], str(args[2])
        yield Failing(args)
        yield Failing((args[0], *args[3:]), {_VARIABLES[str(flag)]: uri})
        self._configs += 1
        config = self.here / f"config-{self._configs}.toml"
        section = "queue" if flag == "-q" else "storage"
        config.write_text(f"[{section}]\nnamed = {json.dumps(uri)}\n")
        yield Failing(("--config", config, args[0], flag, "named", *args[3:]))


_VARIABLES = {
    "-s": "CRASHMOVER_SOURCE",
    "-d": "CRASHMOVER_DESTINATION",
    "-q": "CRASHMOVER_QUEUE",
}


def some(runs: Iterable[Failing], count: int | None) -> list[Failing]:
    """Return as many of these, or all; each says as much as it can, or less."""
    everything = list(runs)
    chosen = everything if count is None else random.Random(count).sample(everything, count)
    louder: list[tuple[str, ...]] = [(), ("-v",), ("-vv",), ("--log-format", "json")]
    return [
        Failing((*louder[number % len(louder)], *failing.args), failing.env)
        for number, failing in enumerate(chosen)
    ]


@contextmanager
def echoing() -> Iterator[str]:
    """Run a server that refuses a request and repeats its headers, as Amazon's repeats a token
    that it does not accept; give its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = "".join(f"<{name}>{value}</{name}>" for name, value in self.headers.items())
        body = f"<Error><Code>InvalidToken</Code>{headers}</Error>".encode()
        self.send_response_only(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _refuse
