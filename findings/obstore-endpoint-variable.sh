#!/usr/bin/env bash
# obstore: a variable of the environment goes before the endpoint that the caller names.
#
# With: obstore 0.12.1; November 2026.
# Guess: S3Store(endpoint=...) is the endpoint, whatever the environment says.
# Seen: with AWS_ENDPOINT_URL_S3 set, the object goes to that server; with AWS_ENDPOINT_URL or
#   AWS_ENDPOINT set, to the one that the caller named.
# For a user: name the endpoint as "endpoint_url_s3" too, or keep that variable away.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
AWS_ENDPOINT: the server that the caller named
AWS_ENDPOINT_URL: the server that the caller named
AWS_ENDPOINT_URL_S3: the server of the variable
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q obstore==0.12.1
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import os, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from obstore.store import S3Store
import obstore

class Bucket(BaseHTTPRequestHandler):
    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked.append(self.server.name)
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words):
        pass

def serve(name):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    server.name = name
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"

asked = []
named, other = serve("the server that the caller named"), serve("the server of the variable")
for variable in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
    os.environ[variable] = other
    asked.clear()
    store = S3Store("crashes", endpoint=named, region="us-east-1", access_key_id="k", secret_access_key="s",
                    client_options={"allow_http": True}, retry_config={"max_retries": 0})
    obstore.put(store, "crash", b"{}", use_multipart=False)
    print(f"{variable}: {asked[0]}")
    del os.environ[variable]
PYTHON
diff expected seen && echo "as it was seen before"
