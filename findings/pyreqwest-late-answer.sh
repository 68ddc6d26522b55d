#!/usr/bin/env bash
# pyreqwest: an answer that comes too late is a ConnectTimeoutError.
#
# With: pyreqwest 0.15.1, requests 2.34.2; November 2026.
# Guess: ConnectTimeoutError, "timeout while connecting" by its docstring, says that the request was never
#   sent.  If a server takes the request and does not answer in time, it is a ReadTimeoutError.
# Seen: it is a ConnectTimeoutError, "connection timeout", after read_timeout or timeout; the server has the
#   whole request, and a connect_timeout of a minute is not over.  ReadTimeoutError is only for a body that
#   stops.  requests tells the two apart.
# For a user: do not send a POST again because of ConnectTimeoutError: the server may have done it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
no connection, connect_timeout: ConnectTimeoutError, requests that arrived: 0
late answer, read_timeout: ConnectTimeoutError, requests that arrived: 1
late answer, timeout: ConnectTimeoutError, requests that arrived: 1
late body, read_timeout: ReadTimeoutError, requests that arrived: 1
requests: no connection: ConnectTimeout, requests that arrived: 0
requests: late answer: ReadTimeout, requests that arrived: 1
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pyreqwest==0.15.1 requests==2.34.2
cd "$work"
env PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import os, socket, threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

for name in list(os.environ):
    if "proxy" in name.lower():
        del os.environ[name]
import requests
from pyreqwest.client import SyncClientBuilder

class Late(BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.rfile.read(int(self.headers["Content-Length"])) == b"{}"
        arrived.append(self.path)
        if self.path == "/body":
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
        over.wait()

    def log_message(self, *words):
        pass

over = threading.Event()
arrived = []
server = ThreadingHTTPServer(("127.0.0.1", 0), Late)
threading.Thread(target=server.serve_forever, daemon=True).start()
late = f"http://127.0.0.1:{server.server_port}"

full = socket.socket()  # its queue is full, so the kernel answers no further connection
full.bind(("127.0.0.1", 0))
full.listen(0)
waiting = [socket.socket() for _ in range(4)]
for each in waiting:
    each.setblocking(False)
    each.connect_ex(full.getsockname())
nowhere = f"http://127.0.0.1:{full.getsockname()[1]}"
second, minute = timedelta(seconds=1), timedelta(minutes=1)

def report(case, post):
    arrived.clear()
    try:
        post()
        seen = "an answer"
    except Exception as error:
        seen = type(error).__name__
    print(f"{case}: {seen}, requests that arrived: {len(arrived)}")

def post(url, set_times):
    with set_times(SyncClientBuilder()).build() as client:
        client.post(url).body_text("{}").build().send().bytes()

def read_timeout(builder):
    return builder.connect_timeout(minute).read_timeout(second)

report("no connection, connect_timeout", lambda: post(nowhere, lambda builder: builder.connect_timeout(second)))
report("late answer, read_timeout", lambda: post(late, read_timeout))
report("late answer, timeout", lambda: post(late, lambda builder: builder.connect_timeout(minute).timeout(second)))
report("late body, read_timeout", lambda: post(f"{late}/body", read_timeout))
report("requests: no connection", lambda: requests.post(nowhere, data="{}", timeout=(1, 60)))
report("requests: late answer", lambda: requests.post(late, data="{}", timeout=(60, 1)))
over.set()
PYTHON
diff expected seen && echo "as it was seen before"
