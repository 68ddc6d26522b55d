#!/usr/bin/env bash
# Btrfs: a directory that is open does not list what was made in it since.
#
# With: Linux 6.18.44, btrfs-progs 6.2 (Debian 12), Python 3.11 or later; November 2026.
# Guess: listing a directory by a descriptor shows what is in it now, however long it has been open.
# Seen: on Btrfs the descriptor lists no name that is newer than itself.  A file that was renamed since is
#   listed under neither name, nor is one that another file was renamed over.  A second listing has
#   what there was at the end of the first, for Python rewinds then.  Seeking to 0 before a listing, or
#   opening "." anew by the descriptor, shows all.  An overlay with its upper directory on Btrfs does
#   the same.  tmpfs shows all at once.
# For a user: open the directory, then lock, then list, and you list what was there before the lock.
#   Open "." anew by the descriptor when you hold the lock.
#
# It needs root, to mount, and Debian 12's packages, through apt-get.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "this needs root, to mount" >&2; exit 1; }
work=$(mktemp -d)
trap 'umount "$work"/overlay "$work"/btrfs "$work"/tmpfs 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT
cat > "$work/expected" <<'SEEN'
tmpfs: made since: listed; again: listed
tmpfs: made since, sought to 0: listed
tmpfs: made since, opened anew: listed
tmpfs: renamed since: old name -, new name listed
tmpfs: replaced since: listed
btrfs: made since: -; again: listed
btrfs: made since, sought to 0: listed
btrfs: made since, opened anew: listed
btrfs: renamed since: old name -, new name -
btrfs: replaced since: -
overlay: made since: -; again: listed
overlay: made since, sought to 0: listed
overlay: made since, opened anew: listed
overlay: renamed since: old name -, new name -
overlay: replaced since: -
SEEN
cd "$work"
apt-get -qq -o APT::Sandbox::User=root download btrfs-progs=6.2-1+deb12u2
dpkg -x btrfs-progs_*.deb debian
mkdir tmpfs btrfs overlay
truncate -s 128M image
debian/sbin/mkfs.btrfs -q image >/dev/null
mount -t tmpfs tmpfs tmpfs
mount -o loop image btrfs
mkdir btrfs/lower btrfs/upper btrfs/work
mount -t overlay overlay -o lowerdir=btrfs/lower,upperdir=btrfs/upper,workdir=btrfs/work overlay
timeout 120 python3 - <<'PYTHON' | tee seen
import os, pathlib

FLAGS = os.O_RDONLY | os.O_DIRECTORY

def is_listed(name, descriptor):
    return "listed" if name in os.listdir(descriptor) else "-"

for kind in ("tmpfs", "btrfs", "overlay"):
    directory = pathlib.Path(kind, "crashes")
    directory.mkdir()
    for name in ("old", "other", "replaced"):
        (directory / name).touch()

    descriptor = os.open(directory, FLAGS)
    (directory / "new1").touch()
    print(f"{kind}: made since: {is_listed('new1', descriptor)}; again: {is_listed('new1', descriptor)}")
    (directory / "new2").touch()
    os.lseek(descriptor, 0, os.SEEK_SET)
    print(f"{kind}: made since, sought to 0: {is_listed('new2', descriptor)}")
    (directory / "new3").touch()
    print(f"{kind}: made since, opened anew: {is_listed('new3', os.open('.', FLAGS, dir_fd=descriptor))}")

    descriptor = os.open(directory, FLAGS)
    (directory / "old").rename(directory / "renamed")
    names = os.listdir(descriptor)
    old, new = ("listed" if name in names else "-" for name in ("old", "renamed"))
    print(f"{kind}: renamed since: old name {old}, new name {new}")

    descriptor = os.open(directory, FLAGS)
    (directory / "other").rename(directory / "replaced")
    print(f"{kind}: replaced since: {is_listed('replaced', descriptor)}")
PYTHON
diff expected seen && echo "as it was seen before"
