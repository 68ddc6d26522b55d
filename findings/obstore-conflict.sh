#!/usr/bin/env bash
# obstore: a conflict is "already exists", for a plain overwrite too.
#
# With: obstore 0.12.1; November 2026.
# Guess: 409 ConditionalRequestConflict, which S3 documents as "try again", is an error of its own or is
#   tried again.
# Seen: AlreadyExistsError after one request, without a condition as with "create"; a put on the
#   condition of an ETag ("update") is tried again.  503 is tried again in all three.
# For a user: AlreadyExistsError does not prove that there is an object.  Look for "409" in its text.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
409 overwrite AlreadyExistsError requests: 1
409 create AlreadyExistsError requests: 1
409 update AlreadyExistsError requests: 3
503 overwrite GenericError requests: 3
503 create GenericError requests: 3
503 update GenericError requests: 3
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q obstore==0.12.1
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import threading, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from obstore.store import S3Store
import obstore

class Bucket(BaseHTTPRequestHandler):
    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked += 1
        body = b"<Error><Code>%s</Code></Error>" % self.server.code
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
threading.Thread(target=server.serve_forever, daemon=True).start()
store = S3Store("crashes", endpoint=f"http://127.0.0.1:{server.server_port}", region="us-east-1", access_key_id="k",
                secret_access_key="s", client_options={"allow_http": True},
                retry_config={"max_retries": 2, "backoff": {"init_backoff": datetime.timedelta(milliseconds=1),
                    "max_backoff": datetime.timedelta(milliseconds=2), "base": 2}})
for server.status, server.code in ((409, b"ConditionalRequestConflict"), (503, b"SlowDown")):
    for mode in ("overwrite", "create", {"e_tag": '"1"'}):
        server.asked = 0
        try:
            obstore.put(store, "crash", b"{}", mode=mode, use_multipart=False)
        except Exception as error:
            print(server.status, mode if isinstance(mode, str) else "update", type(error).__name__, "requests:", server.asked)
PYTHON
diff expected seen && echo "as it was seen before"
