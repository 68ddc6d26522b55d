# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Pub/Sub: Google's emulator where it is installed, and drongo from PyPI."""

import shutil
import signal
import sys
import uuid
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

from tests.servers.process import MissingServer, ServerProcess

_JAR = "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"
_SDKS = ("/usr/lib/google-cloud-sdk", "/opt/google-cloud-sdk", "/usr/share/google-cloud-sdk")


class PubSub(ServerProcess):
    """A Pub/Sub server, without credentials."""

    leases_end = True
    """Whether a delivery that is neither acked nor extended is handed out again."""

    stop_signal = signal.SIGKILL

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def uri(self) -> str:
        """Return the URI of queues that are not there yet."""
        return f"pubsub://project/t{uuid.uuid4().hex[:12]}"


class Emulator(PubSub):
    """Google's own, of the Google Cloud SDK.  It hands out 100 messages at once at most."""

    def command(self) -> list[str | Path]:
        java, jar = _emulator()
        return [java, "-jar", jar, f"--host={self.host}", f"--port={self.port}"]


class Drongo(PubSub):
    """drongo: publishes, pulls and acks; its leases never end, and its pulls never wait."""

    leases_end = False

    def command(self) -> list[str | Path]:
        return [sys.executable, Path(__file__).with_name("drongo_server.py"), str(self.port)]


def _emulator() -> tuple[Path, Path]:
    gcloud = shutil.which("gcloud")
    roots: list[str | Path] = [*_SDKS, *([Path(gcloud).resolve().parents[1]] if gcloud else [])]
    jars = [jar for root in roots for jar in sorted(Path(root).glob(_JAR))]
    java = shutil.which("java")
    if not jars or not java:
        raise MissingServer("the Pub/Sub emulator of the Google Cloud SDK, or Java")
    return Path(java), jars[-1]


def has_emulator() -> bool:
    """Whether Google's emulator is installed: it cannot be had from PyPI."""
    try:
        _emulator()
    except MissingServer:
        return False
    return True


def servers() -> list[type[PubSub]]:
    """Return those that the tests run over."""
    return [Emulator, Drongo] if has_emulator() else [Drongo]


def version() -> str:
    """Say which servers there are; raise `MissingServer` where there is none."""
    try:
        drongo = f"drongo {package_version('drongo')}"
    except PackageNotFoundError as error:
        raise MissingServer("the package drongo") from error
    if not has_emulator():
        return f"{drongo} (Google's Pub/Sub emulator is not installed)"
    number = _emulator()[1].name.removeprefix("cloud-pubsub-emulator-").removesuffix("-all.jar")
    return f"Pub/Sub emulator {number}, {drongo}"
