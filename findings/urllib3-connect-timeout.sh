#!/usr/bin/env bash
# urllib3: the time-out for connecting holds for a whole upload of bytes.
#
# With: urllib3 2.8.0, boto3 1.44.8; November 2026.
# Guess: Timeout(connect=1, read=60) gives the connection one second, and a body that flows as long as it
#   needs.
# Seen: while the body is sent, the socket has the time-out for connecting, and Python's sendall() counts
#   it from beginning to end.  16 MiB in one bytes object to a server that takes 3 s for them fail after
#   1 s, with the connection there and bytes flowing.  From a file they go up, since urllib3 sends it block
#   by block.  boto3 has the same two time-outs, and sends bytes as a file.
# For a user: give urllib3 large bodies as a file (io.BytesIO), with their Content-Length.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
urllib3, bytes: ProtocolError: TimeoutError('timed out'), whole upload arrived: False
urllib3, file: whole upload arrived: True
boto3, bytes: whole upload arrived: True
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q urllib3==2.8.0 boto3==1.44.8
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import io, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import boto3, urllib3
from botocore.config import Config

SIZE = 16 << 20
SECONDS = 3

class Slow(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        """Take the body evenly, in three seconds."""
        began, received = time.monotonic(), 0
        while received < SIZE:
            block = self.rfile.read1(65536)
            if not block:
                return
            received += len(block)
            time.sleep(max(0, began + SECONDS * received / SIZE - time.monotonic()))
        arrived.append(received)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
body = bytes(SIZE)
http = urllib3.PoolManager(timeout=urllib3.Timeout(connect=1, read=60), retries=False)
s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s",
                  config=Config(connect_timeout=1, read_timeout=60, retries={"total_max_attempts": 1},
                                request_checksum_calculation="when_required"))
size = {"Content-Length": str(SIZE)}
for name, put in {
    "urllib3, bytes": lambda: http.request("PUT", f"{url}/crashes/dump", body=body),
    "urllib3, file": lambda: http.request("PUT", f"{url}/crashes/dump", body=io.BytesIO(body), headers=size),
    "boto3, bytes": lambda: s3.put_object(Bucket="crashes", Key="dump", Body=body),
}.items():
    arrived = []
    said = ""
    try:
        put()
    except urllib3.exceptions.ProtocolError as error:
        said = f"{type(error).__name__}: {error.args[1]!r}, "
    print(f"{name}: {said}whole upload arrived: {arrived == [SIZE]}")
PYTHON
diff expected seen && echo "as it was seen before"
