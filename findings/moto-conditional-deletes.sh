#!/usr/bin/env bash
# moto: deletes on a condition.
#
# With: moto 5.2.5, ministack 1.4.21, boto3 1.44.8; November 2026.
# Guess: DeleteObject with If-Match "*" deletes an object that is there; DeleteObjects with an ETag that
#   is not the object's deletes nothing: so Amazon documents both (conditional deletes, 2025).
# Seen: ministack does both.  moto refuses the first with PreconditionFailed, and in the second deletes
#   the object and reports it as deleted.
# For a user: a test of conditional deletes that passes with moto proves nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
ministack any ETag: 204
ministack stale ETag: PreconditionFailed
moto any ETag: PreconditionFailed
moto stale ETag: deleted
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q boto3==1.44.8 'moto[server]==5.2.5' ministack==1.4.21
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import atexit, os, socket, subprocess, sys, time
import boto3
from botocore.exceptions import ClientError

os.environ["BIND_HOST"] = "127.0.0.1"
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
ports = {
    "ministack": start("env", "GATEWAY_PORT={port}", "SERVICES=s3", "ministack"),
    "moto": start("moto_server", "-H", "127.0.0.1", "-p", "{port}"),
}
where = {"Bucket": "crashes", "Key": "dump"}
stale = '"00000000000000000000000000000000"'
for name, port in ports.items():
    s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                      aws_access_key_id="testkey", aws_secret_access_key="testsecret")
    s3.create_bucket(Bucket="crashes")
    s3.put_object(**where, Body=b"MDMP")
    try:
        print(name, "any ETag:", s3.delete_object(**where, IfMatch="*")["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        print(name, "any ETag:", error.response["Error"]["Code"])
    s3.put_object(**where, Body=b"MDMP")
    answer = s3.delete_objects(Bucket="crashes", Delete={"Objects": [{"Key": "dump", "ETag": stale}]})
    print(name, "stale ETag:", "deleted" if answer.get("Deleted") else answer["Errors"][0]["Code"])
PYTHON
diff expected seen && echo "as it was seen before"
