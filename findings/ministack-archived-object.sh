#!/usr/bin/env bash
# ministack: an archived object gives its bytes.
#
# With: ministack 1.4.21, moto 5.2.5, boto3 1.44.8; November 2026.
# Guess: GetObject of an object of the storage class GLACIER is refused with InvalidObjectState, as
#   Amazon does until it is restored.
# Seen: moto refuses it; ministack stores the class, shows it in HeadObject and in listings, and gives
#   the bytes.
# For a user: test what your program does with archived objects against moto.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
ministack GLACIER b'MDMP'
moto GLACIER InvalidObjectState
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
for name, port in ports.items():
    s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                      aws_access_key_id="testkey", aws_secret_access_key="testsecret")
    s3.create_bucket(Bucket="crashes")
    s3.put_object(**where, Body=b"MDMP", StorageClass="GLACIER")
    try:
        answer = s3.get_object(**where)["Body"].read()
    except ClientError as error:
        answer = error.response["Error"]["Code"]
    print(name, s3.head_object(**where)["StorageClass"], answer)
PYTHON
diff expected seen && echo "as it was seen before"
