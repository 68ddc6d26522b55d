#!/usr/bin/env bash
# ministack: what a delete on a condition says of a missing key differs between versions.
#
# With: ministack 1.4.21 and 1.5.33, boto3 1.44.8; November 2026.
# Guess: If-Match is not met where there is no object (RFC 9110, 13.1.1), so nothing is done and both
#   requests say the same, in every version.
# Seen: 1.4.21 says 204 to DeleteObject, and leaves a delete marker in a bucket with versions; it says
#   PreconditionFailed for the key in DeleteObjects.  1.5.33 says NoSuchKey to both and leaves nothing.
# For a user: PreconditionFailed of one key in DeleteObjects may mean "changed" or "gone".  Ask with
#   HeadObject.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
1.4.21 no versions, DeleteObject: 204
1.4.21 no versions, DeleteObjects: PreconditionFailed
1.4.21 no versions, delete markers: 0
1.4.21 versions, DeleteObject: 204
1.4.21 versions, DeleteObjects: PreconditionFailed
1.4.21 versions, delete markers: 1
1.5.33 no versions, DeleteObject: NoSuchKey
1.5.33 no versions, DeleteObjects: NoSuchKey
1.5.33 no versions, delete markers: 0
1.5.33 versions, DeleteObject: NoSuchKey
1.5.33 versions, DeleteObjects: NoSuchKey
1.5.33 versions, delete markers: 0
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q boto3==1.44.8
for version in 1.4.21 1.5.33; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install -q "ministack==$version"
done
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
etag = '"00000000000000000000000000000000"'
for version in ("1.4.21", "1.5.33"):
    port = start("env", "GATEWAY_PORT={port}", "SERVICES=s3", f"{version}/bin/ministack")
    s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                      aws_access_key_id="testkey", aws_secret_access_key="testsecret")
    s3.create_bucket(Bucket="crashes")
    for kind in ("no versions", "versions"):
        if kind == "versions":
            s3.put_bucket_versioning(Bucket="crashes", VersioningConfiguration={"Status": "Enabled"})
        try:
            answer = s3.delete_object(Bucket="crashes", Key="dump", IfMatch=etag)
            print(version, f"{kind}, DeleteObject:", answer["ResponseMetadata"]["HTTPStatusCode"])
        except ClientError as error:
            print(version, f"{kind}, DeleteObject:", error.response["Error"]["Code"])
        answer = s3.delete_objects(Bucket="crashes", Delete={"Objects": [{"Key": "dump", "ETag": etag}]})
        print(version, f"{kind}, DeleteObjects:", "deleted" if answer.get("Deleted") else answer["Errors"][0]["Code"])
        left = s3.list_object_versions(Bucket="crashes").get("DeleteMarkers", [])
        print(version, f"{kind}, delete markers:", len(left))
PYTHON
diff expected seen && echo "as it was seen before"
