#!/usr/bin/env bash
# obstore and boto3: Retry-After is not looked at.
#
# With: obstore 0.12.1, boto3 1.44.8, urllib3 2.8.0; November 2026.
# Guess: a client that tries 429 and 503 again by itself first waits as long as Retry-After says (RFC 9110,
#   10.2.3).
# Seen: both ask again after their own pauses; those of obstore begin with a tenth of a second.  urllib3
#   waits.
# For a user: if your server or gateway limits rates by Retry-After, give obstore pauses as long as that in
#   retry_config.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
503 obstore requests: 3, waited as asked: no
503 boto3 requests: 3, waited as asked: no
503 urllib3 requests: 3, waited as asked: yes
429 obstore requests: 3, waited as asked: no
429 boto3 requests: 3, waited as asked: no
429 urllib3 requests: 3, waited as asked: yes
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q obstore==0.12.1 boto3==1.44.8 urllib3==2.8.0
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import boto3, obstore, urllib3
from botocore.config import Config
from obstore.store import S3Store

WAIT = 2.5  # seconds; the pauses of the others are random, and never as long as this

class Bucket(BaseHTTPRequestHandler):
    def do_GET(self):
        """Answer two requests with the status and "Retry-After: 3", and the third with the object."""
        asked.append(time.monotonic())
        is_ready = len(asked) == 3
        body = b"MDMP" if is_ready else b"<Error><Code>SlowDown</Code></Error>"
        self.send_response(200 if is_ready else status)
        self.send_header("Retry-After", "3")
        self.send_header("Last-Modified", "Wed, 18 Nov 2026 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
store = S3Store("crashes", endpoint=url, region="us-east-1", access_key_id="k", secret_access_key="s",
                client_options={"allow_http": True})
s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s",
                  config=Config(retries={"mode": "standard"}))
http = urllib3.PoolManager(retries=urllib3.Retry(3, status_forcelist=(429, 503)))
for status in (503, 429):
    for name, get in {
        "obstore": lambda: obstore.get(store, "dump").bytes().to_bytes(),
        "boto3": lambda: s3.get_object(Bucket="crashes", Key="dump")["Body"].read(),
        "urllib3": lambda: http.request("GET", f"{url}/crashes/dump").data,
    }.items():
        asked = []
        assert get() == b"MDMP"
        has_waited = all(later - sooner > WAIT for sooner, later in zip(asked, asked[1:]))
        print(status, name, f"requests: {len(asked)}, waited as asked: {'yes' if has_waited else 'no'}")
PYTHON
diff expected seen && echo "as it was seen before"
