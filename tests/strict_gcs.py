# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A server of Google Cloud Storage that holds what fake-gcs-server passes over: preconditions
everywhere, checksums, tokens and their end, permissions, holds and retention.

It has the JSON API, and of the XML API the one request that reads an object.

What it does not know it refuses, as a misspelt parameter that a server ignores would prove nothing.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import google_crc32c

from tests.servers.gcs import uri_of

_QUANTUM = 256 << 10  # bytes: the length of a piece of an upload is a multiple of it
_COMMON = {"fields", "prettyPrint", "alt", "projection", "userProject"}
_KNOWN = {
    "object": _COMMON | {"generation", "ifGenerationMatch"},
    "list": _COMMON
    | {"prefix", "delimiter", "startOffset", "maxResults", "pageToken", "includeTrailingDelimiter"},
    "upload": _COMMON | {"uploadType", "name", "ifGenerationMatch", "kmsKeyName", "upload_id"},
    "bucket": _COMMON | {"project"},
    "xml": {"generation", "userProject"},
}
_XML_CODES = {
    400: "UserProjectMissing",
    401: "AuthenticationRequired",
    403: "AccessDenied",
    416: "InvalidRange",
}


@dataclass
class Object:
    """An object that is there."""

    name: str
    data: bytes
    generation: int
    resource: dict[str, Any]
    time: str

    @property
    def crc32c(self) -> str:
        """The checksum of its bytes."""
        return crc32c(self.data)

    def shown(self) -> dict[str, Any]:
        """Return what the server says of it."""
        return {
            **self.resource,
            "kind": "storage#object",
            "name": self.name,
            "size": str(len(self.data)),
            "generation": str(self.generation),
            "metageneration": "1",
            "crc32c": self.crc32c,
            "timeCreated": self.time,
            "updated": self.time,
        }


@dataclass
class Upload:
    """An upload in pieces."""

    bucket: str
    resource: dict[str, Any]
    query: Mapping[str, str]
    data: bytearray = field(default_factory=bytearray)
    made: Object | None = None


@dataclass
class Bucket:
    """:param settings: what the server says of the bucket"""

    objects: dict[str, Object] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


class Refusal(Exception):
    """What the server says instead."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason


def crc32c(data: bytes) -> str:
    """Return the checksum, as the server writes it."""
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


class StrictGCS:
    """:param page: how many names a page of a listing has at most"""

    def __init__(self, page: int = 1000) -> None:
        self.page = page
        self.buckets: dict[str, Bucket] = {}
        self.uploads: dict[str, Upload] = {}
        self.tokens: set[str] | None = None
        """The tokens that are accepted; None: nobody is asked for one."""
        self.repeats = False
        """Whether it repeats, in a refusal, the token that it was sent."""
        self.denied: set[str] = set()
        """The permissions that the account has not."""
        self.kept: dict[str, str] = {}
        """By the ends of names, why an object can be neither replaced nor removed."""
        self.forbidden: Refusal | None = None
        """What a policy of the organization says to all that is put or deleted."""
        self.xml: Literal["with metadata", "without metadata", "none"] = "with metadata"
        """What its XML API sends along with an object's bytes; or that there is no such API."""
        self.persists = 1 << 40
        """How many bytes of each piece of an upload are kept."""
        self.sent = 0
        """How many bytes there were in the bodies of all answers."""
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.begun: list[dict[str, Any]] = []
        """What each upload says of its object, in one request or in pieces."""
        self.lock = threading.RLock()
        self.generations = count(1_000_000_000_000_000)
        self.names = count(1)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.strict = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def new_bucket(self, **settings: Any) -> str:
        """Make a bucket and return its name."""
        name = f"crashes-{next(self.names)}"
        self.buckets[name] = Bucket(settings=settings)
        return name

    def uri(self, bucket: str, prefix: str = "", **options: str) -> str:
        """Return the URI of a store there."""
        return uri_of(self.endpoint_url, bucket, prefix, **options)

    def put(self, bucket: str, name: str, data: bytes, **resource: Any) -> Object:
        """Put an object as another program does."""
        with self.lock:
            time = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            made = Object(name, data, next(self.generations), resource, time)
            self.buckets[bucket].objects[name] = made
            return made

    def put_object(self, bucket: str, key: str, data: bytes, encoding: str | None = None) -> None:
        self.put(bucket, key, data, **({"contentEncoding": encoding} if encoding else {}))

    def delete_object(self, bucket: str, key: str) -> None:
        with self.lock:
            self.buckets[bucket].objects.pop(key, None)

    def objects(self, bucket: str, text: str = "") -> dict[str, bytes]:
        with self.lock:
            found = self.buckets[bucket].objects.items()
            return {name: each.data for name, each in found if text in name}

    def count(self, text: str = "") -> int:
        """How many requests there were that have this text in them."""
        return sum(text in request for request in self.requests)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def strict_gcs() -> Iterator[StrictGCS]:
    """Run a server."""
    server = StrictGCS()
    try:
        yield server
    finally:
        server.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    strict: StrictGCS


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        with suppress(OSError):  # the client may have gone away
            super().handle()

    @property
    def strict(self) -> StrictGCS:
        assert isinstance(self.server, _Server)
        return self.server.strict

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        is_json = path.startswith(("/storage/", "/upload/", "/download/"))
        self.is_xml = self.command == "GET" and not is_json
        self.is_xml &= self.strict.xml != "none" and path != "/"
        self.strict.requests.append(f"{self.command} {self.path}")
        self.strict.headers.append({name.lower(): text for name, text in self.headers.items()})
        try:
            with self.strict.lock:
                self._check_token()
                self._route(body)
        except Refusal as refusal:
            detail = {"message": refusal.message, "domain": "global", "reason": refusal.reason}
            error = {"code": refusal.status, "message": refusal.message, "errors": [detail]}
            if self.is_xml:
                self._say_in_xml(refusal)
            else:
                self._say({"error": error}, refusal.status)
        self._send(*self.answer)  # without the lock: the client may take its time

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _check_token(self) -> None:
        if self.strict.tokens is not None:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if token not in self.strict.tokens:
                raise Refusal(401, "Invalid Credentials", "authError")

    def _route(self, body: bytes) -> None:
        url = urlsplit(self.path)
        pairs = parse_qsl(url.query, keep_blank_values=True)
        self.query = dict(pairs)
        assert len(self.query) == len(pairs), url.query
        steps = url.path.strip("/").split("/")
        if self.is_xml:
            self._get_by_xml(*map(unquote, steps))
            return
        kind = steps.pop(0) if steps[0] in ("upload", "download") else ""
        if steps[:3] != ["storage", "v1", "b"] or len(steps) not in (4, 5, 6):
            raise Refusal(404, "Not Found")  # also for a name with a slash that is not encoded
        bucket, name = unquote(steps[3]), unquote(steps[5]) if len(steps) == 6 else ""
        if bucket not in self.strict.buckets:
            raise Refusal(404, "The specified bucket does not exist.", "notFound")
        self.bucket = bucket
        if len(steps) > 4 and steps[4] != "o":
            raise Refusal(404, "Not Found")
        if len(steps) == 4:
            self._allow("bucket", "storage.buckets.get")
            self._say(self.strict.buckets[bucket].settings | {"kind": "storage#bucket"})
        elif kind == "upload":
            self._upload(body)
        elif len(steps) == 5:
            self._list()
        elif self.command == "DELETE":
            self._delete(name)
        else:
            self._get(name)

    def _allow(self, kind: str, permission: str) -> None:
        unknown = self.query.keys() - _KNOWN[kind]
        assert not unknown, f"what is {unknown}?"
        if permission in self.strict.denied:
            message = f"a@b.iam.gserviceaccount.com does not have {permission} access to the"
            message += f" Google Cloud Storage object. Permission '{permission}' denied on resource"
            if self.strict.repeats:
                message = f"not with {self.headers.get('Authorization')}"
            raise Refusal(403, f"{message} (or it may not exist).", "forbidden")
        payer = self.strict.buckets[self.bucket].settings.get("billing")
        named = self.headers.get("X-Goog-User-Project") if self.is_xml else None
        if payer and not (named or (not self.is_xml and "userProject" in self.query)):
            message = "Bucket is a requester pays bucket but no user project provided."
            raise Refusal(400, message, "required")

    def _found(self, name: str) -> Object | None:
        return self.strict.buckets[self.bucket].objects.get(name)

    def _hold_condition(self, name: str, query: Mapping[str, str]) -> None:
        there = self._found(name)
        wanted = query.get("ifGenerationMatch")
        if wanted is not None and int(wanted) != (there.generation if there else 0):
            message = "At least one of the pre-conditions you specified did not hold."
            raise Refusal(412, message, "conditionNotMet")

    def _hold_kept(self, name: str) -> None:
        if self._found(name):
            for end, why in self.strict.kept.items():
                if name.endswith(end):
                    raise Refusal(403, why, "retentionPolicyNotMet")

    # Reading

    def _get(self, name: str) -> None:
        self._allow("object", "storage.objects.get")
        there = self._found(name)
        generation = self.query.get("generation")
        if there is None or (generation and int(generation) != there.generation):
            raise Refusal(404, f"No such object: {self.bucket}/{name}", "notFound")
        self._hold_condition(name, self.query)
        if self.query.get("alt", "json") == "json":
            self._say(self._filtered(there.shown()))
            return
        self._send_bytes(there)

    def _get_by_xml(self, bucket: str, name: str) -> None:
        """Google's XML API says each hash in a header of its own."""
        if bucket not in self.strict.buckets:
            raise Refusal(404, "The specified bucket does not exist.", "NoSuchBucket")
        self.bucket = bucket
        self._allow("xml", "storage.objects.get")
        there = self._found(name)
        generation = self.query.get("generation")
        if there is None or (generation and int(generation) != there.generation):
            raise Refusal(404, "The specified key does not exist.", "NoSuchKey")
        metadata = there.resource.get("metadata", {})
        self._send_bytes(there, metadata if self.strict.xml == "with metadata" else {})

    def _send_bytes(
        self, there: Object, metadata: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        encoding = there.resource.get("contentEncoding")
        assert encoding != "gzip" or "gzip" in self.headers.get("Accept-Encoding", "")
        head = {
            "Content-Type": there.resource.get("contentType", "application/octet-stream"),
            "X-Goog-Generation": str(there.generation),
            "X-Goog-Hash": f"crc32c={there.crc32c}",
            "X-Goog-Stored-Content-Length": str(len(there.data)),
            "X-Goog-Stored-Content-Encoding": encoding or "identity",
            **{f"X-Goog-Meta-{name}": metadata[name] for name in metadata if name.isascii()},
        } | ({"Content-Encoding": encoding} if encoding else {})
        data, status = there.data, 200
        if span := self.headers.get("Range"):
            start, _, last = span.removeprefix("bytes=").partition("-")
            if int(start) >= len(data):
                raise Refusal(416, "The requested range cannot be satisfied.")
            end = min(int(last) + 1, len(data)) if last else len(data)
            head["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            data, status = data[int(start) : end], 206
        self._answer(status, data, head)

    def _list(self) -> None:
        self._allow("list", "storage.objects.list")
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        start = self.query.get("pageToken") or self.query.get("startOffset", "")
        names = sorted(
            name
            for name in self.strict.buckets[self.bucket].objects
            if name.startswith(prefix) and name >= start
        )
        entries: dict[str, str] = {}  # the first name of each that is shown
        for name in names:
            below, found, _ = name[len(prefix) :].partition(delimiter or "\0")
            entries.setdefault(prefix + below + found if delimiter and found else name, name)
        most = min(int(self.query.get("maxResults", 1000)), self.strict.page)
        shown = list(entries)[:most]
        page: dict[str, Any] = {"kind": "storage#objects"}
        objects = [self._found(name) for name in shown]
        page["items"] = [each.shown() for each in objects if each]
        prefixes = [name for name in shown if self._found(name) is None]
        page |= {"prefixes": prefixes} if prefixes else {}
        if len(entries) > most:
            page["nextPageToken"] = entries[list(entries)[most]]
        self._say(self._filtered(page))

    def _filtered(self, shown: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that are asked for: ``a,b(c,d)``."""
        if "fields" not in self.query:
            return shown
        text = self.query["fields"].replace(")", ",)").replace("(", ",(,")
        kept: dict[str, Any] = {}
        items: set[str] | None = None
        last = ""
        for word in filter(None, text.split(",")):
            if word == "(":
                items = set()
            elif word == ")":
                assert items is not None
                kept[last] = [
                    {name: value for name, value in each.items() if name in items}
                    for each in shown.get(last, [])
                ]
                items = None
            elif items is not None:
                items.add(word)
            else:
                last = word
                kept |= {word: shown[word]} if word in shown else {}
        return kept

    # Writing

    def _delete(self, name: str) -> None:
        self._allow("object", "storage.objects.delete")
        if self.strict.forbidden:
            raise self.strict.forbidden
        if self._found(name) is None:
            raise Refusal(404, f"No such object: {self.bucket}/{name}", "notFound")
        self._hold_condition(name, self.query)
        self._hold_kept(name)
        del self.strict.buckets[self.bucket].objects[name]
        self._answer(204, b"", {})

    def _upload(self, body: bytes) -> None:
        self._allow("upload", "storage.objects.create")
        if "upload_id" in self.query:
            self._go_on(body)
        elif self.query["uploadType"] == "multipart":
            resource, data = self._parsed(body)
            self.strict.begun.append(dict(resource))
            self._say(self._filtered(self._made(resource, data, self.query).shown()))
        else:
            assert self.query["uploadType"] == "resumable"
            resource = json.loads(body)
            self.strict.begun.append(dict(resource))
            self._check_allowed(self._name_of(resource, self.query), self.query)
            number = f"upload-{next(self.strict.names)}"
            self.strict.uploads[number] = Upload(self.bucket, resource, dict(self.query))
            path = f"/upload/storage/v1/b/{self.bucket}/o?uploadType=resumable&upload_id={number}"
            self._answer(200, b"", {"Location": self.strict.endpoint_url + path})

    def _go_on(self, body: bytes) -> None:
        number = self.query["upload_id"]
        upload = self.strict.uploads.get(number)
        if upload is None:
            raise Refusal(404, "Upload not found", "notFound")
        if self.command == "DELETE":
            del self.strict.uploads[number]
            self._answer(499, b"", {})
            return
        if upload.made:
            self._say(upload.made.shown())
            return
        span, _, total = self.headers["Content-Range"].removeprefix("bytes ").partition("/")
        if span != "*":
            first, last = map(int, span.split("-"))
            assert last - first + 1 == len(body), self.headers["Content-Range"]
            assert total != "*" or len(body) % _QUANTUM == 0, "a piece of an odd length"
            assert first <= len(upload.data), "a gap"
            body = body[len(upload.data) - first :]
            upload.data += body[: self.strict.persists]
        if total == "*" or int(total) != len(upload.data):
            arrived = f"bytes=0-{len(upload.data) - 1}"
            self._answer(308, b"", {"Range": arrived} if upload.data else {})
            return
        hashes = self.headers.get("X-Goog-Hash", "").partition("crc32c=")[2]
        resource = upload.resource | ({"crc32c": hashes} if hashes else {})
        upload.made = self._made(resource, bytes(upload.data), upload.query)
        self._say(upload.made.shown())

    def _parsed(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        """Return what an upload in one request says of the object, and its bytes."""
        kind, _, boundary = self.headers["Content-Type"].partition("; boundary=")
        assert kind == "multipart/related", kind
        mark = f"--{boundary.strip(chr(34))}".encode()
        nothing, first, second, end = body.split(mark)
        assert (nothing, end.strip()) == (b"", b"--"), end
        _, _, resource = first.partition(b"\r\n\r\n")
        _, _, data = second.partition(b"\r\n\r\n")
        assert data.endswith(b"\r\n")
        return json.loads(resource), data[:-2]

    def _name_of(self, resource: dict[str, Any], query: Mapping[str, str]) -> str:
        name: str = query.get("name") or resource["name"]
        return name

    def _check_allowed(self, name: str, query: Mapping[str, str]) -> None:
        if self.strict.forbidden:
            raise self.strict.forbidden
        self._hold_condition(name, query)
        if self._found(name) and "storage.objects.delete" in self.strict.denied:
            self._allow("upload", "storage.objects.delete")
        self._hold_kept(name)

    def _made(self, resource: dict[str, Any], data: bytes, query: Mapping[str, str]) -> Object:
        name = self._name_of(resource, query)
        said = resource.pop("crc32c", None)
        if said not in (None, crc32c(data)):
            message = f'Provided CRC32C "{said}" doesn\'t match calculated CRC32C "{crc32c(data)}".'
            raise Refusal(400, message, "invalid")
        self._check_allowed(name, query)
        assert all(isinstance(each, str) for each in resource.get("metadata", {}).values())
        resource = {key: value for key, value in resource.items() if key != "name"}
        if "kmsKeyName" in query:
            resource["kmsKeyName"] = query["kmsKeyName"]
        return self.strict.put(self.bucket, name, data, **resource)

    # Answering

    def _say(self, shown: object, status: int = 200) -> None:
        self._answer(status, json.dumps(shown).encode(), {"Content-Type": "application/json"})

    def _say_in_xml(self, refusal: Refusal) -> None:
        is_missing = refusal.status == 404
        code = refusal.reason if is_missing else _XML_CODES.get(refusal.status, "InvalidArgument")
        details = f"<Details>{refusal.message}</Details>"
        text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code>{details}</Error>"
        self._answer(refusal.status, text.encode(), {"Content-Type": "application/xml"})

    def _answer(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.answer = status, data, headers

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        self.send_header("Date", formatdate(time.time(), usegmt=True))
        for name, text in headers.items():
            self.send_header(name, text)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.strict.sent += len(data)
        self.wfile.write(data)
