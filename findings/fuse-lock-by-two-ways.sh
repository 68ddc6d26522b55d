#!/usr/bin/env bash
# bindfs and sshfs: two ways to one file do not share its lock.
#
# With: bindfs 1.14.7, sshfs 3.7.3, OpenSSH 9.2p1 (Debian 12), Linux 6.18.44, Python 3.11 or later;
#   November 2026.
# Guess: a mount that cannot forward flock() refuses it, so that a program notices.
# Seen: the mount grants it.  Two processes that use one mount exclude each other; by two mounts, or by a
#   mount and the directory, both get the exclusive lock.  bindfs forwards locks with
#   --enable-lock-forwarding and --multithreaded.
# For a user: that flock() works on a mount does not show which processes it excludes.  Let all use one way.
#
# It needs root, to mount, and Debian 12's packages, through apt-get.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "this needs root, to mount" >&2; exit 1; }
work=$(mktemp -d)
trap 'umount "$work"/mounts/* 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT
cat > "$work/expected" <<'SEEN'
directory and directory: the second is refused
bindfs and bindfs: the second is refused
bindfs and directory: both are granted
bindfs that forwards and directory: the second is refused
sshfs and sshfs: the second is refused
sshfs and another sshfs: both are granted
sshfs and directory: both are granted
SEEN
cd "$work"
apt-get -qq -o APT::Sandbox::User=root download bindfs=1.14.7-1 libfuse2=2.9.9-6+b1 sshfs=3.7.3-1.2~deb12u1 \
  libfuse3-3=3.14.0-4 libglib2.0-0=2.74.6-2+deb12u9 libpcre2-8-0=10.42-1+deb12u2 openssh-sftp-server=1:9.2p1-2+deb12u10
for package in *.deb; do dpkg -x "$package" debian; done
export LD_LIBRARY_PATH=$(echo "$work"/debian/lib/*-linux-gnu):$(echo "$work"/debian/usr/lib/*-linux-gnu)
printf '#!/bin/sh\nexec "%s/debian/usr/lib/openssh/sftp-server"\n' "$work" > ssh
chmod +x ssh  # sshfs speaks with OpenSSH's server of files itself, without a network
mkdir -p directory mounts/{bindfs,forwarding,sshfs,another}
debian/usr/bin/bindfs directory mounts/bindfs
debian/usr/bin/bindfs --enable-lock-forwarding --multithreaded directory mounts/forwarding
for name in sshfs another; do
  debian/usr/bin/sshfs -o "ssh_command=$work/ssh" "server:$work/directory" mounts/$name
done
timeout 120 python3 - <<'PYTHON' | tee seen
import fcntl, pathlib

ways = {
    "directory": "directory",
    "bindfs": "mounts/bindfs",
    "bindfs that forwards": "mounts/forwarding",
    "sshfs": "mounts/sshfs",
    "another sshfs": "mounts/another",
}
pairs = [("directory", "directory"), ("bindfs", "bindfs"), ("bindfs", "directory"), ("bindfs that forwards", "directory"),
         ("sshfs", "sshfs"), ("sshfs", "another sshfs"), ("sshfs", "directory")]
pathlib.Path("directory/lock").touch()
for first, second in pairs:
    with open(f"{ways[first]}/lock", "r+") as one, open(f"{ways[second]}/lock", "r+") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            answer = "both are granted"
        except BlockingIOError:
            answer = "the second is refused"
    print(f"{first} and {second}: {answer}")
PYTHON
diff expected seen && echo "as it was seen before"
