# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""An S3 server that lists: ``listing_server.py PORT DIRECTORY``.

Every bucket holds the files of the directory, as they were at the start.  It answers
ListObjectsV2 and HEAD as fast as Python can, GET as if nothing were there, and refuses
everything else.  ``GET /-/requests`` returns how many requests there were of each bucket and
kind since the last such question.
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
from urllib.parse import parse_qs, unquote, urlsplit

_LAST = "\U0010ffff"  # behind every other character
_MISSING = b"<Error><Code>NoSuchKey</Code><Message>There is none.</Message></Error>"
_REFUSED = b"<Error><Code>NotImplemented</Code><Message>It only lists.</Message></Error>"


class Answer(NamedTuple):
    status: str
    body: bytes = b""
    headers: str = ""
    length: int | None = None


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

    def head(self, key: str) -> Answer:
        if key not in self.facts:
            return Answer("404 Not Found")
        size, time = self.facts[key]
        modified = dt.datetime.fromtimestamp(time / 1e9, dt.UTC)
        headers = f"Last-Modified: {modified:%a, %d %b %Y %H:%M:%S} GMT\r\nETag: {etag(key)}\r\n"
        headers += f"x-amz-meta-mtime: {time // 10**9}.{time % 10**9:09}\r\n"  # as rclone puts it
        return Answer("200 OK", headers=headers, length=size)

    def list(self, query: dict[str, list[str]]) -> Answer:
        """Return a page: keys, or where there is a delimiter what they have in common."""
        one = {name: values[0] for name, values in query.items()}
        prefix, delimiter = one.get("prefix", ""), one.get("delimiter", "")
        most = int(one.get("max-keys", 1000))
        after = one.get("continuation-token") or one.get("start-after", "")
        at = max(bisect_left(self.keys, prefix), bisect_right(self.keys, after))
        items: list[str] = []
        while at < len(self.keys) and self.keys[at].startswith(prefix) and len(items) < most:
            after = self.keys[at]
            step, found, _ = after[len(prefix) :].partition(delimiter or "\0")
            if found:
                common = prefix + step + delimiter
                items.append(f"<CommonPrefixes><Prefix>{common}</Prefix></CommonPrefixes>")
                after = common + _LAST
                at = bisect_left(self.keys, after)
            else:
                items.append(self._contents(after))
                at += 1
        cut = at < len(self.keys) and self.keys[at].startswith(prefix)
        token = f"<NextContinuationToken>{after}</NextContinuationToken>" if cut else ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>bucket</Name><Prefix>{prefix}</Prefix><MaxKeys>{most}</MaxKeys>"
            f"<KeyCount>{len(items)}</KeyCount><IsTruncated>{str(cut).lower()}</IsTruncated>"
            f"{token}{''.join(items)}</ListBucketResult>"
        )
        return Answer("200 OK", body.encode(), "Content-Type: application/xml\r\n")

    def _contents(self, key: str) -> str:
        size, time = self.facts[key]
        modified = dt.datetime.fromtimestamp(time // 10**9, dt.UTC)
        return (
            f"<Contents><Key>{key}</Key><Size>{size}</Size><ETag>{etag(key)}</ETag>"
            f"<LastModified>{modified:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )


def etag(key: str) -> str:
    """Return one that is no MD5: nobody takes it for a checksum."""
    return f'"{hash(key) & 0xFFFFFFFF:08x}-1"'


class Server:
    """Answers requests, and counts them."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
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
        bucket, _, key = unquote(url.path)[1:].partition("/")
        if bucket == "-":
            counts, self.counts = self.counts, Counter()
            return Answer("200 OK", json.dumps(counts).encode())
        kind = "LIST" if method == "GET" and not key else method
        self.counts[f"{bucket} {kind}"] += 1
        if kind == "LIST":
            return self.objects.list(parse_qs(url.query))
        if kind == "HEAD":
            return self.objects.head(key) if key else Answer("200 OK")
        return Answer("404 Not Found", _MISSING) if kind == "GET" else Answer("501 No", _REFUSED)


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
