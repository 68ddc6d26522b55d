#!/usr/bin/env bash
# pyreqwest: one header that is not ASCII hides all headers of an answer.
#
# With: pyreqwest 0.15.1, requests 2.34.2; November 2026.
# Guess: a header whose value has other bytes, which RFC 9110, 5.5, allows ("obs-text"), comes as text or
#   as bytes, or is left out.
# Seen: reading it raises ValueError, with a default too.  So does each way to read all headers: items(),
#   values(), dict() and repr().  The names and the other values can be read.  requests gives all.
# For a user: read headers by their names, in a try, if another program chose the values: metadata of
#   objects in a bucket, names of files in Content-Disposition.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
requests: {'x-owner': 'antenna', 'x-place': 'Zürich'}
names: ['x-owner', 'x-place']
["x-owner"]: antenna
"x-place" in: True
["x-place"]: ValueError
get("x-place", None): ValueError
getall("x-place"): ValueError
items(): ValueError
values(): ValueError
dict(): ValueError
repr(): ValueError
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pyreqwest==0.15.1 requests==2.34.2
cd "$work"
env PYTHONIOENCODING=utf-8 PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import os, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

for name in list(os.environ):
    if "proxy" in name.lower():
        del os.environ[name]
import requests
from pyreqwest.client import SyncClientBuilder

class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response_only(200)
        self.send_header("x-owner", "antenna")
        self.send_header("x-place", "Zürich")  # http.server sends ISO 8859-1
        self.end_headers()

    def log_message(self, *words):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
print("requests:", dict(requests.get(url).headers))
with SyncClientBuilder().build() as client:
    headers = client.get(url).build().send().headers
ways = {
    "names": lambda: sorted(headers),
    '["x-owner"]': lambda: headers["x-owner"],
    '"x-place" in': lambda: "x-place" in headers,
    '["x-place"]': lambda: headers["x-place"],
    'get("x-place", None)': lambda: headers.get("x-place", None),
    'getall("x-place")': lambda: headers.getall("x-place"),
    "items()": lambda: list(headers.items()),
    "values()": lambda: list(headers.values()),
    "dict()": lambda: dict(headers),
    "repr()": lambda: repr(headers),
}
for name, read in ways.items():
    try:
        print(f"{name}:", read())
    except Exception as error:
        print(f"{name}:", type(error).__name__)
PYTHON
diff expected seen && echo "as it was seen before"
