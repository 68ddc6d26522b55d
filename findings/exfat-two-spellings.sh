#!/usr/bin/env bash
# exfat-fuse: one file that is opened by two spellings is two files to the kernel.
#
# With: exfat-fuse 1.3.0, exfatprogs 1.2.0 (Debian 12), Linux 6.18.44, Python 3.11 or later; November 2026.
# Guess: where "memory" and "Memory" are one file, they have one inode number, and so one lock.
# Seen: creating the other spelling is refused, as it exists.  But samefile() says no, both get the
#   exclusive lock, and what is written by one spelling is cut when it is read by the other.
# For a user: neither a lock nor an inode number keeps two programs apart that spell a name in two ways.
#   Compare names without their case before you write.
#
# It needs root, to mount, and Debian 12's packages, through apt-get.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "this needs root, to mount" >&2; exit 1; }
work=$(mktemp -d)
device=
trap 'umount "$work/mounted" 2>/dev/null || true; [ -z "$device" ] || losetup -d "$device"; rm -rf --one-file-system "$work"' EXIT
cat > "$work/expected" <<'SEEN'
listed: ['memory']
create Memory: FileExistsError
samefile(memory, memory): True
samefile(memory, Memory): False
lock of memory and memory: the second is refused
lock of memory and Memory: both are granted
written by memory: MDMP and more, read by memory: MDMP and more
written by memory: MDMP and more, read by Memory: MDMP
SEEN
cd "$work"
apt-get -qq -o APT::Sandbox::User=root download exfat-fuse=1.3.0+git20220115-2 exfatprogs=1.2.0-1+deb12u1 libfuse2=2.9.9-6+b1
for package in *.deb; do dpkg -x "$package" debian; done
export LD_LIBRARY_PATH=$(echo "$work"/debian/lib/*-linux-gnu)
mkdir mounted
truncate -s 16M image
debian/usr/sbin/mkfs.exfat image > /dev/null
device=$(losetup -f --show image)
debian/sbin/mount.exfat-fuse "$device" mounted > /dev/null
timeout 120 python3 - <<'PYTHON' | tee seen
import fcntl, os

def write(text):
    with open("memory", "w") as file:
        file.write(text)

os.chdir("mounted")
write("MDMP")
print("listed:", os.listdir())
try:
    open("Memory", "x")
except FileExistsError as error:
    print("create Memory:", type(error).__name__)
for name in ("memory", "Memory"):
    print(f"samefile(memory, {name}): {os.path.samefile('memory', name)}")
for name in ("memory", "Memory"):
    with open("memory") as one, open(name) as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            answer = "both are granted"
        except BlockingIOError:
            answer = "the second is refused"
    print(f"lock of memory and {name}: {answer}")
for name in ("memory", "Memory"):
    write("MDMP")
    with open(name) as file:
        write("MDMP and more")
        print(f"written by memory: MDMP and more, read by {name}: {file.read()}")
PYTHON
diff expected seen && echo "as it was seen before"
