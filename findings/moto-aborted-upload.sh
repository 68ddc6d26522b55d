#!/usr/bin/env bash
# moto: to an aborted upload, two of four requests are answered with 500.
#
# With: moto 5.2.5, ministack 1.4.21, boto3 1.44.8; November 2026.
# Guess: each request that names an aborted upload is 404 NoSuchUpload, as Amazon documents it for
#   UploadPart and CompleteMultipartUpload too.
# Seen: moto answers these two with 500 without an error code, and the other two as guessed.
#   ministack says NoSuchUpload to all four.
# For a user: clients try 500 again.  A test with moto of an upload that another process aborted sees an
#   outage of the server.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
ministack upload_part 404 NoSuchUpload
ministack complete_multipart_upload 404 NoSuchUpload
ministack list_parts 404 NoSuchUpload
ministack abort_multipart_upload 404 NoSuchUpload
moto upload_part 500 500
moto complete_multipart_upload 500 500
moto list_parts 404 NoSuchUpload
moto abort_multipart_upload 404 NoSuchUpload
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q boto3==1.44.8 'moto[server]==5.2.5' ministack==1.4.21
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import atexit, os, socket, subprocess, sys, time
import boto3
from botocore.config import Config
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
                      aws_access_key_id="testkey", aws_secret_access_key="testsecret",
                      config=Config(retries={"total_max_attempts": 1}))
    s3.create_bucket(Bucket="crashes")
    upload = s3.create_multipart_upload(**where)["UploadId"]
    etag = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"MDMP")["ETag"]
    s3.abort_multipart_upload(**where, UploadId=upload)
    for request, more in {
        "upload_part": {"PartNumber": 1, "Body": b"MDMP"},
        "complete_multipart_upload": {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": etag}]}},
        "list_parts": {},
        "abort_multipart_upload": {},
    }.items():
        try:
            getattr(s3, request)(**where, UploadId=upload, **more)
            print(name, request, "done")
        except ClientError as error:
            print(name, request, error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"])
PYTHON
diff expected seen && echo "as it was seen before"
