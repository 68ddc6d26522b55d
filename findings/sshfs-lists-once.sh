#!/usr/bin/env bash
# sshfs: without its cache, the second listing of an open directory is empty.
#
# With: sshfs 3.7.3, OpenSSH 9.2p1 (Debian 12), Linux 6.18.44, Python 3.11 or later; November 2026.
# Guess: a directory that is open can be listed again, after it was rewound.
# Seen: with -o dir_cache=no the second listing by one descriptor has no name, and raises nothing; "." that
#   is opened anew by the descriptor has all.  With the cache, which is the default, every listing is
#   whole.
# For a user: a program that lists again finds an empty directory, and may take its files for removed.
#   Open the directory for each listing.
#
# It needs root, to mount, and Debian 12's packages, through apt-get.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "this needs root, to mount" >&2; exit 1; }
work=$(mktemp -d)
trap 'umount "$work"/mounts/* 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT
cat > "$work/expected" <<'SEEN'
directory: ['dump', 'raw_crash'], again: ['dump', 'raw_crash'], opened anew: ['dump', 'raw_crash']
sshfs: ['dump', 'raw_crash'], again: ['dump', 'raw_crash'], opened anew: ['dump', 'raw_crash']
sshfs with dir_cache=no: ['dump', 'raw_crash'], again: [], opened anew: ['dump', 'raw_crash']
SEEN
cd "$work"
apt-get -qq -o APT::Sandbox::User=root download sshfs=3.7.3-1.2~deb12u1 libfuse3-3=3.14.0-4 \
  libglib2.0-0=2.74.6-2+deb12u9 libpcre2-8-0=10.42-1+deb12u2 openssh-sftp-server=1:9.2p1-2+deb12u10
for package in *.deb; do dpkg -x "$package" debian; done
export LD_LIBRARY_PATH=$(echo "$work"/debian/lib/*-linux-gnu):$(echo "$work"/debian/usr/lib/*-linux-gnu)
printf '#!/bin/sh\nexec "%s/debian/usr/lib/openssh/sftp-server"\n' "$work" > ssh
chmod +x ssh  # sshfs speaks with OpenSSH's server of files itself, without a network
mkdir -p directory mounts/{cache,none}
touch directory/dump directory/raw_crash
debian/usr/bin/sshfs -o "ssh_command=$work/ssh" "server:$work/directory" mounts/cache
debian/usr/bin/sshfs -o "ssh_command=$work/ssh,dir_cache=no" "server:$work/directory" mounts/none
timeout 120 python3 - <<'PYTHON' | tee seen
import os

ways = {"directory": "directory", "sshfs": "mounts/cache", "sshfs with dir_cache=no": "mounts/none"}
for name, way in ways.items():
    descriptor = os.open(way, os.O_RDONLY | os.O_DIRECTORY)
    first, again = sorted(os.listdir(descriptor)), sorted(os.listdir(descriptor))
    anew = sorted(os.listdir(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)))
    print(f"{name}: {first}, again: {again}, opened anew: {anew}")
PYTHON
diff expected seen && echo "as it was seen before"
