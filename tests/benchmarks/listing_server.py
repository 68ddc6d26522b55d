# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A server that lists, as S3 and as Google Cloud Storage do: ``listing_server.py PORT DIRECTORY``.

Every bucket holds the files of the directory, as they were at the start.  It answers listings and
questions for single objects as fast as Python can, S3's ListObjectsV2 and HEAD and the same by
Google's JSON API.  It answers GET as if nothing were there, and refuses everything else.
``GET /-/requests`` returns how many requests there were of each bucket and kind since the last
such question.
"""

import asyncio
import datetime as dt
import json
import os
import sys
from bisect import bisect_left, bisect_right
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

_LAST = "\U0010ffff"  # behind every other character
_MISSING = b"<Error><Code>NoSuchKey</Code><Message>There is none.</Message></Error>"
_REFUSED = b"<Error><Code>NotImplemented</Code><Message>It only lists.</Message></Error>"
_NOT_FOUND = b'{"error": {"code": 404, "message": "No such object"}}'
_GOOGLE = "/storage/v1/b/"
_XML, _JSON = "Content-Type: application/xml\r\n", "Content-Type: application/json\r\n"


class Answer(NamedTuple):
    status: str
    body: bytes = b""
    headers: str = ""
    length: int | None = None


class Page(NamedTuple):
    """What a listing has on a page.

    :param directories: what keys have in common, up to the delimiter
    :param next: behind which key the next page begins; None: there is none
    """

    keys: list[str]
    directories: list[str]
    next: str | None


class Objects:
    """What there is: the keys in their order, and of each the size and the time."""

    def __init__(self, directory: Path) -> None:
        found = {}
        for root, _, names in os.walk(directory):
            for name in names:
                status = Path(root, name).stat()
                key = Path(root, name).relative_to(directory).as_posix()
                found[key] = (status.st_size, status.st_mtime_ns)
        self.keys = sorted(found)
        self.facts = found

    def page(self, prefix: str, delimiter: str, start: int, most: int) -> Page:
        """Return a page.

        :param start: how many keys are before it, of whatever prefix
        :param most: how many keys and directories it may have
        """
        keys, after = self.keys, ""
        found: list[str] = []
        directories: list[str] = []
        at = max(bisect_left(keys, prefix), start)
        while at < len(keys) and keys[at].startswith(prefix):
            if len(found) + len(directories) == most:
                return Page(found, directories, after)
            after = keys[at]
            step, has_more, _ = after[len(prefix) :].partition(delimiter or "\0")
            if has_more:
                directories.append(prefix + step + delimiter)
                after = directories[-1] + _LAST
                at = bisect_left(keys, after)
            else:
                found.append(after)
                at += 1
        return Page(found, directories, None)

    def behind(self, key: str) -> int:
        """Return how many keys there are up to a key and with it."""
        return bisect_right(self.keys, key)


class S3:
    """The answers of S3."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def head(self, key: str) -> Answer:
        if not key:  # the bucket itself
            return Answer("200 OK")
        if key not in self._objects.facts:
            return Answer("404 Not Found")
        size, time = self._objects.facts[key]
        modified = dt.datetime.fromtimestamp(time / 1e9, dt.UTC)
        headers = f"Last-Modified: {modified:%a, %d %b %Y %H:%M:%S} GMT\r\nETag: {etag(key)}\r\n"
        headers += f"x-amz-meta-mtime: {time // 10**9}.{time % 10**9:09}\r\n"  # as rclone puts it
        return Answer("200 OK", headers=headers, length=size)

    def list(self, query: dict[str, str]) -> Answer:
        prefix, most = query.get("prefix", ""), int(query.get("max-keys", 1000))
        start = self._objects.behind(
            query.get("continuation-token") or query.get("start-after", "")
        )
        page = self._objects.page(prefix, query.get("delimiter", ""), start, most)
        items = [
            f"<CommonPrefixes><Prefix>{found}</Prefix></CommonPrefixes>"
            for found in page.directories
        ]
        items += map(self._contents, page.keys)
        token = f"<NextContinuationToken>{page.next}</NextContinuationToken>" if page.next else ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>bucket</Name><Prefix>{prefix}</Prefix><MaxKeys>{most}</MaxKeys>"
            f"<KeyCount>{len(items)}</KeyCount><IsTruncated>{str(bool(token)).lower()}</IsTruncated>"
            f"{token}{''.join(items)}</ListBucketResult>"
        )
        return Answer("200 OK", body.encode(), _XML)

    def _contents(self, key: str) -> str:
        size, time = self._objects.facts[key]
        modified = dt.datetime.fromtimestamp(time // 10**9, dt.UTC)
        return (
            f"<Contents><Key>{key}</Key><Size>{size}</Size><ETag>{etag(key)}</ETag>"
            f"<LastModified>{modified:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )


class GCS:
    """The answers of Google Cloud Storage."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def head(self, key: str) -> Answer:
        if key not in self._objects.facts:
            return Answer("404 Not Found", _NOT_FOUND, _JSON)
        return Answer("200 OK", json.dumps(self._resource(key)).encode(), _JSON)

    def list(self, query: dict[str, str]) -> Answer:
        start = bisect_left(self._objects.keys, query.get("startOffset", ""))
        if token := query.get("pageToken"):
            start = self._objects.behind(token)
        most, delimiter = int(query.get("maxResults", 1000)), query.get("delimiter", "")
        page = self._objects.page(query.get("prefix", ""), delimiter, start, most)
        body: dict[str, object] = {"kind": "storage#objects", "prefixes": page.directories}
        if "items(name)" in query.get("fields", ""):
            body["items"] = [{"name": key} for key in page.keys]
        else:
            body["items"] = list(map(self._resource, page.keys))
        if page.next:
            body["nextPageToken"] = page.next
        return Answer("200 OK", json.dumps(body).encode(), _JSON)

    def _resource(self, key: str) -> dict[str, object]:
        size, time = self._objects.facts[key]
        modified = dt.datetime.fromtimestamp(time // 10**9, dt.UTC)
        second = f"{modified:%Y-%m-%dT%H:%M:%S}"
        return {
            "name": key,
            "size": str(size),
            "generation": "1",
            "timeCreated": f"{second}.000Z",
            "updated": f"{second}.000Z",
            "metadata": {"mtime": f"{second}.{time % 10**9:09}Z"},  # as rclone puts it
        }


def etag(key: str) -> str:
    """Return one that is no MD5: nobody takes it for a checksum."""
    return f'"{hash(key) & 0xFFFFFFFF:08x}-1"'


class Server:
    """Answers requests, and counts them."""

    def __init__(self, objects: Objects) -> None:
        self.s3, self.gcs = S3(objects), GCS(objects)
        self.counts: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection, one after the other."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, target, _ = head.split(" ", 2)
                writer.write(encoded(self.answer(method, target)))
                await writer.drain()
                if method not in ("GET", "HEAD"):
                    break  # there may be a body, which nobody wants
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def answer(self, method: str, target: str) -> Answer:
        url = urlsplit(target)
        if url.path == "/-/requests":
            counts, self.counts = self.counts, Counter()
            return Answer("200 OK", json.dumps(counts).encode())
        query = dict(parse_qsl(url.query))
        is_google, bucket, key = place_of(url.path)
        kind = method
        if method == "GET" and not key:
            kind = "LIST"
        elif method == "GET" and is_google and query.get("alt") != "media":
            kind = "HEAD"
        api = self.gcs if is_google else self.s3
        self.counts[f"{bucket} {kind}"] += 1
        if kind == "LIST":
            return api.list(query)
        if kind == "HEAD":
            return api.head(key)
        return Answer("404 Not Found", _MISSING) if kind == "GET" else Answer("501 No", _REFUSED)


def place_of(path: str) -> tuple[bool, str, str]:
    """Return whether a path is of Google's API, and the bucket and the key in it."""
    if path.startswith(_GOOGLE):
        bucket, _, key = path.removeprefix(_GOOGLE).partition("/o")
        return True, bucket, unquote(key[1:])
    bucket, _, key = path[1:].partition("/")
    return False, bucket, unquote(key)


def encoded(answer: Answer) -> bytes:
    """Return an answer as it is sent."""
    length = len(answer.body) if answer.length is None else answer.length
    head = f"HTTP/1.1 {answer.status}\r\n{answer.headers}Content-Length: {length}\r\n\r\n"
    return head.encode() + answer.body


async def main(port: int, directory: Path) -> None:
    server = Server(Objects(directory))
    await (await asyncio.start_server(server.serve, "127.0.0.1", port)).serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
