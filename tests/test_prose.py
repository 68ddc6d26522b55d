# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Plain English: the actor of a sentence is a process, a server, a reader, and never *somebody*."""

import io
import re
import tokenize
from collections import Counter
from pathlib import Path

import crashmover

HOME = Path(crashmover.__file__).parent
NOT_AN_ACTOR = re.compile(r"\b(who|whoever|nobody|somebody|everybody|he|him|his)\b", re.IGNORECASE)
SAID = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}

MOST = 3
"""May only fall."""


def test_sentences_name_their_actor() -> None:
    found = Counter[str]()
    for path in sorted(HOME.rglob("*.py")):
        for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
            if token.type in SAID:
                count = len(NOT_AN_ACTOR.findall(token.string))
                found += Counter({path.relative_to(HOME).as_posix(): count})
    assert found.total() <= MOST, dict(found.most_common(10))
