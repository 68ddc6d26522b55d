#!/usr/bin/env bash
# moto: a large upload is completed whatever If-Match says.
#
# With: moto 5.2.5, ministack 1.4.21, boto3 1.44.8; November 2026.
# Guess: CompleteMultipartUpload with an If-Match that is not the object's ETag is 412 (so Amazon documents
#   it), as PutObject is with the same condition.
# Seen: moto carries it out, over another object and where there is none.  It honours If-Match of
#   PutObject and If-None-Match of both.  ministack honours all four.
# For a user: test conditional overwriting of large objects against ministack.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
ministack put, IfMatch: PreconditionFailed, b'old'
ministack put, IfNoneMatch: PreconditionFailed, b'old'
ministack complete, IfMatch: PreconditionFailed, b'old'
ministack complete, IfNoneMatch: PreconditionFailed, b'old'
ministack complete, IfMatch, no object: NoSuchKey
moto put, IfMatch: PreconditionFailed, b'old'
moto put, IfNoneMatch: PreconditionFailed, b'old'
moto complete, IfMatch: stored, b'new'
moto complete, IfNoneMatch: PreconditionFailed, b'old'
moto complete, IfMatch, no object: stored
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
unmet = {"IfMatch": '"00000000000000000000000000000000"', "IfNoneMatch": "*"}

def put(condition):
    s3.put_object(**where, Body=b"new", **condition)

def complete(condition):
    upload = s3.create_multipart_upload(**where)["UploadId"]
    etag = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"new")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts, **condition)

def answer(request, name):
    try:
        request({name: unmet[name]})
        return "stored"
    except ClientError as error:
        return error.response["Error"]["Code"]

for name, port in ports.items():
    s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                      aws_access_key_id="testkey", aws_secret_access_key="testsecret")
    s3.create_bucket(Bucket="crashes")
    for request in (put, complete):
        for condition in unmet:
            s3.put_object(**where, Body=b"old")
            print(name, f"{request.__name__}, {condition}:", f"{answer(request, condition)},", s3.get_object(**where)["Body"].read())
    s3.delete_object(**where)
    print(name, "complete, IfMatch, no object:", answer(complete, "IfMatch"))
PYTHON
diff expected seen && echo "as it was seen before"
