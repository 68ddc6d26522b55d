#!/usr/bin/env bash
# bindfs and sshfs: a file that was replaced is read as the beginning of the new one.
#
# With: bindfs 1.14.7, sshfs 3.7.3, OpenSSH 9.2p1 (Debian 12), Linux 6.18.44, Python 3.11 or later;
#   November 2026.
# Guess: a file that rename() replaces behind the mount is read whole: all of the old or all of the new.
# Seen: the kernel remembers a file's status for a second (attr_timeout).  If the file is replaced meanwhile,
#   it opens the new one, and reads as many bytes as the old one had.  No error is raised, and fstat()
#   tells the old size.  With -o attr_timeout=0 the new file is whole.
# For a user: a reader that looks at a file first, and then reads it, may get half of it.  Where another
#   program writes behind the mount, mount it with that option.
#
# It needs root, to mount, and Debian 12's packages, through apt-get.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "this needs root, to mount" >&2; exit 1; }
work=$(mktemp -d)
trap 'umount "$work"/mounts/* 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT
cat > "$work/expected" <<'SEEN'
directory: size 24, read: {"v": 2, "dump": "MDMP"}
bindfs: size 8, read: {"v": 2,
bindfs with attr_timeout=0: size 24, read: {"v": 2, "dump": "MDMP"}
sshfs: size 8, read: {"v": 2,
sshfs with dir_cache=no: size 8, read: {"v": 2,
sshfs with attr_timeout=0: size 24, read: {"v": 2, "dump": "MDMP"}
SEEN
cd "$work"
apt-get -qq -o APT::Sandbox::User=root download bindfs=1.14.7-1 libfuse2=2.9.9-6+b1 sshfs=3.7.3-1.2~deb12u1 \
  libfuse3-3=3.14.0-4 libglib2.0-0=2.74.6-2+deb12u9 libpcre2-8-0=10.42-1+deb12u2 openssh-sftp-server=1:9.2p1-2+deb12u10
for package in *.deb; do dpkg -x "$package" debian; done
export LD_LIBRARY_PATH=$(echo "$work"/debian/lib/*-linux-gnu):$(echo "$work"/debian/usr/lib/*-linux-gnu)
printf '#!/bin/sh\nexec "%s/debian/usr/lib/openssh/sftp-server"\n' "$work" > ssh
chmod +x ssh  # sshfs speaks with OpenSSH's server of files itself, without a network
mkdir -p directory mounts/{bindfs,bindfs-0,sshfs,sshfs-no,sshfs-0}
debian/usr/bin/bindfs directory mounts/bindfs
debian/usr/bin/bindfs -o attr_timeout=0 directory mounts/bindfs-0
for name in sshfs sshfs-no:dir_cache=no sshfs-0:attr_timeout=0; do
  options=${name#"${name%%:*}"}
  debian/usr/bin/sshfs -o "ssh_command=$work/ssh${options/:/,}" "server:$work/directory" "mounts/${name%%:*}"
done
timeout 120 python3 - <<'PYTHON' | tee seen
import os, pathlib

ways = {
    "directory": "directory",
    "bindfs": "mounts/bindfs",
    "bindfs with attr_timeout=0": "mounts/bindfs-0",
    "sshfs": "mounts/sshfs",
    "sshfs with dir_cache=no": "mounts/sshfs-no",
    "sshfs with attr_timeout=0": "mounts/sshfs-0",
}
for number, (name, way) in enumerate(ways.items()):
    behind, through = pathlib.Path("directory", f"{number}.json"), pathlib.Path(way, f"{number}.json")
    behind.write_text('{"v": 1}')
    through.stat()
    pathlib.Path("new").write_text('{"v": 2, "dump": "MDMP"}')
    os.rename("new", behind)
    with through.open() as file:
        size = os.fstat(file.fileno()).st_size
        print(f"{name}: size {size}, read: {file.read()}")
PYTHON
diff expected seen && echo "as it was seen before"
