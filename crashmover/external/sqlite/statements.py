# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The tables of a queue in SQLite, and the statements that use them.

No statement trusts the clock more than it must: clocks are set, and containers have their own.  A
new message has no time.  The order is that of the ids.  A lease knows its own length, so that one
which a clock that was ahead has left behind is seen to have ended.
"""

import sqlite3

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    body BLOB NOT NULL,
    visible_at REAL NOT NULL,              -- seconds since 1970 at which its lease ends
    deliveries INTEGER NOT NULL DEFAULT 0, -- how often it was handed out or given back
    lease REAL,                            -- seconds that its lease had when it was made
    uncounted INTEGER NOT NULL DEFAULT 0   -- how many of the deliveries do not count as attempts
);
CREATE INDEX IF NOT EXISTS messages_by_queue ON messages (queue); -- and by id, within a queue
"""

_COLUMNS_OF_0_1 = {"id", "queue", "body", "visible_at", "deliveries"}
_NEW_COLUMNS = {"lease": "REAL", "uncounted": "INTEGER NOT NULL DEFAULT 0"}

SEND = "INSERT INTO messages (queue, body, visible_at) VALUES (?, ?, 0)"

# No lease is longer than twice its own length (an hour that is set back at night excepted); one of
# version 0.1, which has none, is taken to be as long as ours.
_FAR = "visible_at > :now + 2 * coalesce(lease, :lease)"
_FREE = f"(deliveries = 0 OR visible_at <= :now OR {_FAR})"

TAKE = f"""
UPDATE messages SET visible_at = :now + :lease, lease = :lease, deliveries = deliveries + 1
WHERE id IN (
    SELECT id FROM messages WHERE queue = :queue AND {_FREE} AND length(body) <= :longest
    ORDER BY id LIMIT :most
)
RETURNING id, CAST(body AS BLOB), deliveries, -- a body is of whatever type it was put there as
    deliveries - uncounted
"""

LONG = f"""
SELECT length(body) FROM messages WHERE queue = :queue AND {_FREE} AND length(body) > :longest
"""

AHEAD = f"""
SELECT count(*), max(visible_at) - :now FROM messages WHERE {_FAR} AND typeof(visible_at) = 'real'
"""

# Each of these leaves alone what was handed out again since, for its `deliveries` has changed.
_SAME = "WHERE id = :id AND deliveries = :deliveries"
ACK = f"DELETE FROM messages {_SAME}"
EXTEND = f"UPDATE messages SET visible_at = :until, lease = :lease {_SAME}"

# What was nacked goes behind what has been published by now.
SEND_AGAIN = f"""
INSERT INTO messages (queue, body, visible_at, deliveries, uncounted)
SELECT queue, body, 0, deliveries, uncounted FROM messages {_SAME}
"""

# What is given back unused stays where it was.  The delivery, and this, do not count.
GIVE_BACK = f"""
UPDATE messages SET visible_at = 0, deliveries = deliveries + 1, uncounted = uncounted + 2 {_SAME}
"""


def upgrade(connection: sqlite3.Connection) -> None:
    """Add what a table that version 0.1 has made lacks; leave alone any other table."""
    if not _lacking(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for name in _lacking(connection):  # another process may have been here first
            connection.execute(f"ALTER TABLE messages ADD COLUMN {name} {_NEW_COLUMNS[name]}")
        connection.execute("CREATE INDEX IF NOT EXISTS messages_by_queue ON messages (queue)")
        connection.execute("DROP INDEX IF EXISTS messages_by_time")
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _lacking(connection: sqlite3.Connection) -> list[str]:
    found = {name for _, name, *_ in connection.execute("PRAGMA table_info(messages)")}
    return [name for name in _NEW_COLUMNS if name not in found] if found >= _COLUMNS_OF_0_1 else []
