#!/usr/bin/env bash
# libfuse's file systems: a file that is replaced by rename() is missing for a moment.
#
# With: bindfs 1.14.7, sshfs 3.7.3, OpenSSH 9.2p1, exfat-fuse 1.3.0 (Debian 12), Linux 6.18.44, Python 3.11
#   or later; November 2026.
# Guess: rename() over a file is one step, so that a reader opens the old file or the new one.
# Seen: one thread replaces a file again and again, and another opens it by name.  On each of the three
#   some of its tries are ENOENT; on the disk below none is.
# For a user: a program that reads "no such file" on such a mount must look once more before it believes
#   that.
#
# It needs root, to mount, and Debian 12's packages, through apt-get.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "this needs root, to mount" >&2; exit 1; }
work=$(mktemp -d)
device=
trap 'umount "$work"/mounts/* 2>/dev/null || true; [ -z "$device" ] || losetup -d "$device"; rm -rf --one-file-system "$work"' EXIT
cat > "$work/expected" <<'SEEN'
the disk: never missing
bindfs: missing at times
sshfs: missing at times
exfat-fuse: missing at times
SEEN
cd "$work"
apt-get -qq -o APT::Sandbox::User=root download bindfs=1.14.7-1 libfuse2=2.9.9-6+b1 sshfs=3.7.3-1.2~deb12u1 \
  libfuse3-3=3.14.0-4 libglib2.0-0=2.74.6-2+deb12u9 libpcre2-8-0=10.42-1+deb12u2 openssh-sftp-server=1:9.2p1-2+deb12u10 \
  exfat-fuse=1.3.0+git20220115-2 exfatprogs=1.2.0-1+deb12u1
for package in *.deb; do dpkg -x "$package" debian; done
export LD_LIBRARY_PATH=$(echo "$work"/debian/lib/*-linux-gnu):$(echo "$work"/debian/usr/lib/*-linux-gnu)
printf '#!/bin/sh\nexec "%s/debian/usr/lib/openssh/sftp-server"\n' "$work" > ssh
chmod +x ssh  # sshfs speaks with OpenSSH's server of files itself, without a network
mkdir -p directory/{disk,bindfs,sshfs} mounts/{bindfs,sshfs,exfat}
debian/usr/bin/bindfs directory/bindfs mounts/bindfs
debian/usr/bin/sshfs -o "ssh_command=$work/ssh" "server:$work/directory/sshfs" mounts/sshfs
truncate -s 16M image
debian/usr/sbin/mkfs.exfat image > /dev/null
device=$(losetup -f --show image)
debian/sbin/mount.exfat-fuse "$device" mounts/exfat > /dev/null
timeout 120 python3 - <<'PYTHON' | tee seen
import os, threading, time

def replace(directory, stop):
    while not stop.is_set():
        with open(f"{directory}/new", "w") as file:
            file.write("MDMP")
        os.rename(f"{directory}/new", f"{directory}/dump")

ways = {"the disk": "directory/disk", "bindfs": "mounts/bindfs", "sshfs": "mounts/sshfs", "exfat-fuse": "mounts/exfat"}
for name, directory in ways.items():
    with open(f"{directory}/dump", "w") as file:
        file.write("MDMP")
    stop = threading.Event()
    writer = threading.Thread(target=replace, args=(directory, stop))
    writer.start()
    missing, end = 0, time.monotonic() + 5
    while time.monotonic() < end:
        try:
            os.close(os.open(f"{directory}/dump", os.O_RDONLY))
        except FileNotFoundError:
            missing += 1
        except OSError:  # ESTALE: the file was replaced while it was opened
            pass
    stop.set()
    writer.join()
    print(f"{name}: {'missing at times' if missing else 'never missing'}")
PYTHON
diff expected seen && echo "as it was seen before"
