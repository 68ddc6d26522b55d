#!/usr/bin/env bash
# obstore: NO_PROXY="*" excepts host names, and no addresses.
#
# With: obstore 0.12.1; November 2026.
# Guess: "*" means that no request goes through the proxy, as with curl and Python's urllib.
# Seen: the request for 127.0.0.1 goes to the proxy, and the one for localhost does not; urllib sends
#   both without the proxy.  NO_PROXY=127.0.0.1 excepts the address.
# For a user: name addresses and networks (10.0.0.0/8) in NO_PROXY.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
NO_PROXY=* 127.0.0.1: obstore asks the proxy, urllib asks the server
NO_PROXY=* localhost: obstore asks the server, urllib asks the server
NO_PROXY=127.0.0.1 127.0.0.1: obstore asks the server, urllib asks the server
NO_PROXY=127.0.0.1 localhost: obstore asks the proxy, urllib asks the proxy
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q obstore==0.12.1
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import os, threading, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import obstore
from obstore.store import HTTPStore

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.server.name)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.send_header("Last-Modified", "Wed, 18 Nov 2026 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *words):
        pass

def serve(name):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.name = name
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port

asked = []
server, proxy = serve("the server"), serve("the proxy")
for name in ("HTTP_PROXY", "http_proxy", "no_proxy", "ALL_PROXY", "all_proxy"):
    os.environ.pop(name, None)
os.environ["http_proxy"] = f"http://127.0.0.1:{proxy}"
for exceptions in ("*", "127.0.0.1"):
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = exceptions
    for host in ("127.0.0.1", "localhost"):
        asked.clear()
        store = HTTPStore(f"http://{host}:{server}", client_options={"allow_http": True})
        obstore.get(store, "crash").bytes()
        urllib.request.urlopen(f"http://{host}:{server}/crash").read()
        print(f"NO_PROXY={exceptions} {host}: obstore asks {asked[0]}, urllib asks {asked[1]}")
PYTHON
diff expected seen && echo "as it was seen before"
