#!/usr/bin/env bash
# obstore: one key with an empty segment ends the listing of a bucket.
#
# With: obstore 0.12.1, boto3 1.44.8, moto 5.2.5; November 2026.
# Guess: a key such as crashes//a is listed, or passed over.
# Seen: obstore.list raises InvalidPathError for the page that has it, so the keys beside it are not
#   listed either; list_with_delimiter of the same prefix gives the directory, and no error.
# For a user: a key that another program wrote with two slashes hides its neighbours.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
boto3 ['v1/a', 'v1/b//c', 'v1/d']
obstore InvalidPathError
with a delimiter ['v1/a', 'v1/d'] ['v1/b']
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q obstore==0.12.1 boto3==1.44.8 'moto[server]==5.2.5'
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import atexit, os, socket, subprocess, sys, time
import boto3, obstore
from obstore.store import S3Store

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
port = start("moto_server", "-H", "127.0.0.1", "-p", "{port}")
account = {"region_name": "us-east-1", "aws_access_key_id": "testkey", "aws_secret_access_key": "testsecret"}
s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **account)
s3.create_bucket(Bucket="crashes")
for key in ("v1/a", "v1/b//c", "v1/d"):
    s3.put_object(Bucket="crashes", Key=key, Body=b"{}")
store = S3Store("crashes", endpoint=f"http://127.0.0.1:{port}", region="us-east-1", access_key_id="testkey",
                secret_access_key="testsecret", client_options={"allow_http": True})
print("boto3", [each["Key"] for each in s3.list_objects_v2(Bucket="crashes")["Contents"]])
try:
    print("obstore", [each["path"] for page in obstore.list(store, "v1") for each in page])
except Exception as error:
    print("obstore", type(error).__name__)
found = obstore.list_with_delimiter(store, "v1")
print("with a delimiter", [each["path"] for each in found["objects"]], found["common_prefixes"])
PYTHON
diff expected seen && echo "as it was seen before"
