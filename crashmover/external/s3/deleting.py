# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Deleting objects on the condition that they are as they were seen.

Amazon's documentation, "How to perform conditional deletes", has two requests for it: many keys
in one DeleteObjects with an ETag for each, and one key in a DeleteObject with If-Match.  Other
servers know both, the second or neither, and some delete in spite of the condition.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Set
from enum import Enum
from html import escape
from itertools import islice

from crashmover.errors import StorageDenied, StorageError, StorageUnavailable
from crashmover.external.s3.s3errors import Refused
from crashmover.external.s3.signed import Answer, SignedClient

_KEYS = 1000  # in one request
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
NO_ETAG = '"00000000000000000000000000000000"'
_RESULT = re.compile(rb"<(Deleted|Error)(?: [^>]*)?>(.*?)</\1>", re.DOTALL)
_MISSING = {"NoSuchKey", "NoSuchVersion"}
_UNMET = "PreconditionFailed"
_NOT_KNOWN = (400, 405, 501)  # how a server says that it does not know such a request ...
_OTHER_REASONS = (StorageDenied, StorageUnavailable)  # ... unless its word means one of these


class _How(Enum):
    """How a server deletes on conditions."""

    MANY = "many keys in one request"
    ONE = "one key in each request"
    NOT = "it does not"


class ConditionalDelete:
    """Deletes objects of one bucket if they have not changed.  Safe for many threads.

    :param client: sends the requests
    """

    def __init__(self, client: SignedClient) -> None:
        self._context = client.context
        self._client = client
        self._how: _How | None = None

    def is_honoured(self, probe: str) -> bool:
        """Return whether the server looks at the conditions.

        Amazon's does.  Another server is asked once, to delete what is not there: whether it says
        so shows whether it has looked.

        :param probe: a key in the store that no object ever has
        """
        if self._how is None:
            self._how = _How.MANY if self._context.is_aws else self._find_out(probe)
        return self._how is not _How.NOT

    def __call__(self, versions: Mapping[str, str], crash_id: str | None = None) -> list[str]:
        """Delete each key whose object still has that ETag; return the keys whose object has
        another one.  A missing object is no error.  First ask `is_honoured`.

        :param versions: ETags by their keys, the prefix of the store included
        :raises StorageError: the server does not delete, for whatever reason
        """
        if self._how is _How.MANY:
            unmet = list(self._delete_many(versions, crash_id))
        else:
            unmet = [key for key in versions if not self._delete(key, versions[key], crash_id)]
        return [key for key in unmet if self._is_there(key, crash_id)]

    def _find_out(self, probe: str) -> _How:
        answer = self._send({probe: NO_ETAG})
        word = self._results(answer, {probe})[probe] if answer.status == 200 else answer.code
        if word in _MISSING | {_UNMET}:
            return _How.MANY
        if word and answer.status == 200:
            raise self._refusal(word)
        if answer.status != 200:
            self._refuse_other_reasons(answer)
        answer = self._client.send("DELETE", probe, headers={"If-Match": NO_ETAG})
        if answer.status == 412 or _is_of_missing(answer):
            return _How.ONE
        if answer.status >= 300:
            self._refuse_other_reasons(answer)
        return _How.NOT

    def _refuse_other_reasons(self, answer: Answer) -> None:
        """Raise what a refusal stands for, unless it says that the server does not know such a
        request.  400 may also say that credentials have expired, or that a request was too slow:
        that tells nothing about later requests."""
        refusal = self._client.refusal(answer)
        if answer.status not in _NOT_KNOWN or isinstance(refusal, _OTHER_REASONS):
            raise refusal

    def _delete_many(self, versions: Mapping[str, str], crash_id: str | None) -> Iterator[str]:
        """Delete objects; yield the keys of those that do not have that ETag."""
        rest = iter(versions.items())
        while some := dict(islice(rest, _KEYS)):
            answer = self._send(some, crash_id)
            if answer.status != 200:
                raise self._client.refusal(answer, crash_id)
            for key, word in self._results(answer, some.keys(), crash_id).items():
                if word == _UNMET:
                    yield key
                elif word and word not in _MISSING:
                    raise self._refusal(word, crash_id)

    def _results(
        self, answer: Answer, keys: Set[str], crash_id: str | None = None
    ) -> dict[str, str]:
        """Return what became of these keys: "", or the server's word for what went wrong."""
        results = _results(answer)
        if word := results.get(""):  # an error of the request as a whole
            raise self._refusal(word, crash_id)
        if not results.keys() >= keys:
            raise self._context.wrong_server(crash_id)
        return {key: results[key] for key in keys}

    def _refusal(self, word: str, crash_id: str | None = None) -> StorageError:
        """Return what to raise where the server has this word for what went wrong with a key."""
        error = Refused(f"DeleteObjects request failed (code: {word})")
        return self._context.explain(error, crash_id)

    def _send(self, versions: Mapping[str, str], crash_id: str | None = None) -> Answer:
        """Send one DeleteObjects."""
        objects = "".join(
            f"<Object><Key>{escape(key, False)}</Key><ETag>{escape(e_tag, False)}</ETag></Object>"
            for key, e_tag in versions.items()
        )
        body = f'<Delete xmlns="{_NAMESPACE}">{objects}</Delete>'.encode()
        digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        headers = {"Content-MD5": digest, "Content-Type": "application/xml"}
        return self._client.send(
            "POST", query={"delete": ""}, headers=headers, body=body, crash_id=crash_id
        )

    def _delete(self, key: str, e_tag: str, crash_id: str | None) -> bool:
        """Delete an object; return False where it does not have that ETag."""
        answer = self._client.send("DELETE", key, headers={"If-Match": e_tag}, crash_id=crash_id)
        if answer.status == 412:
            return False
        if answer.status >= 300 and not _is_of_missing(answer):
            raise self._client.refusal(answer, crash_id)
        return True

    def _is_there(self, key: str, crash_id: str | None) -> bool:
        """Return whether there is an object: a server may say of a missing one, too, that it does
        not have that ETag."""
        answer = self._client.send("HEAD", key, crash_id=crash_id)
        if answer.status not in (200, 404):
            raise self._client.refusal(answer, crash_id)
        return answer.status == 200


def _is_of_missing(answer: Answer) -> bool:
    """Return True if a server says that there is no such object (and not: no such bucket)."""
    return answer.code in _MISSING or (answer.status == 404 and not answer.code)


def _results(answer: Answer) -> dict[str, str]:
    """Return what became of each key: "", or the server's word for what went wrong.  An error
    without a word is one as well."""
    results: dict[str, str] = {}
    for kind, element in _RESULT.findall(answer.body):
        result = Answer(answer.status, {}, element)
        key, word = result.text("Key"), "" if kind == b"Deleted" else result.code or "Error"
        results[key] = results.get(key) or word
    return results
