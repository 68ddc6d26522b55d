# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a mount cannot promise is said once a run, by each command that it concerns."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from crashmover import FSPermanentStorage, InMemoryCrashStorage, PolyCrashStorage
from crashmover.external.fs import mounts
from crashmover.testing import CRASH_ID, contents, crash_of
from tests.cli_helpers import run

LOCKS = "locks do not reach"
LATE = "is seen late"
UPLOADED = "may not be uploaded yet"

Mounting = Callable[..., None]

# What a kind of mount, with its options, cannot promise; "": nothing.
SAVING = {
    "ext4 rw": "",
    "btrfs rw,subvol=/": "",
    "overlay rw,lowerdir=/l": "",
    "zfs rw": "",
    "bcachefs rw": "",
    "erofs ro": "",
    "fuseblk rw,user_id=0": "",
    "fuse.ntfs-3g rw": "",
    "ceph rw": "",
    "gfs2 rw": "",
    "gfs2 rw,localflocks": f"{LOCKS} other machines",
    "ocfs2 rw,localflocks": f"{LOCKS} other machines",
    "lustre rw,localflock": f"{LOCKS} other machines",
    "nfs rw,vers=3,local_lock=none": f"{LOCKS} processes on the server itself",
    "nfs4 rw,vers=4.2": f"{LOCKS} processes on the server itself",
    "nfs rw,nolock": f"{LOCKS} other machines",
    "nfs4 rw,local_lock=flock": f"{LOCKS} other machines",
    "cifs rw,vers=3.1.1": f"{LOCKS} processes on the server itself",
    "smb3 rw,nobrl": f"{LOCKS} other machines",
    "9p rw,trans=virtio": f"{LOCKS} the host, nor other guests",
    "virtiofs rw": f"{LOCKS} the host, nor other guests",
    "fakeowner rw": f"{LOCKS} the host, nor other guests",
    "fuse.grpcfuse rw": f"{LOCKS} the host, nor other guests",
    "fuse.sshfs rw": f"{LOCKS} other mounts",
    "fuse.bindfs rw": f"{LOCKS} other mounts",
    "fuse rw,allow_other": f"{LOCKS} other mounts",
    "fuse.s3fs rw": f"{LOCKS} other mounts",
    "fuse.of-tomorrow rw": f"{LOCKS} other mounts",
    "fuse.rclone rw": f"{UPLOADED}, and is lost if this machine fails; {LOCKS} other mounts",
}

READING = {
    "ext4 rw": "",
    "fuseblk rw": "",
    "ceph rw": "",
    "9p rw": "",
    "nfs4 rw": f"{LATE}, by up to 60 s",
    "nfs rw,noac": "",
    "nfs rw,acregmin=0,acregmax=0,acdirmin=0,acdirmax=0": "",
    "cifs rw,cache=strict": f"{LATE}, by up to 1 s",
    "cifs rw,cache=none": "",
    "virtiofs rw": f"{LATE}, by up to 1 s",
    "fuse.sshfs rw": f"{LATE}, by up to 20 s",
    "fuse.rclone rw": f"{LATE}, by up to 300 s",
    "fuse.bindfs rw": f"{LATE}, by up to 1 s",
    "fuse.of-tomorrow rw": f"{LATE}: ",
}


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounting:
    """Let the system say that directories are mounts of a kind, with options."""
    file = tmp_path / "mountinfo"
    lines = ["22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"]
    monkeypatch.setattr(mounts, "_MOUNTINFO", file)

    def mount(at: Path | str, kind_and_options: str, source: str = "there") -> None:
        kind, options = kind_and_options.split(" ")
        lines.append(f"30 22 0:{len(lines)} / {at} rw,relatime - {kind} {source} {options}")
        file.write_text("\n".join(lines) + "\n")

    return mount


def of_mount(kind: str, found: list[str]) -> str:
    """Return what was found, without the place."""
    if not found:
        return ""
    [text] = found
    return text.removeprefix(f"fs:///srv/crashes: the mount /srv, of {kind.split(' ')[0]}: ")


@pytest.mark.parametrize("kind", SAVING)
def test_what_saving_there_cannot_promise(mount: Mounting, kind: str) -> None:
    mount("/srv", kind)
    text = of_mount(kind, list(FSPermanentStorage("/srv/crashes").durability_risks()))
    assert SAVING[kind] in text
    assert bool(SAVING[kind]) == bool(text)


@pytest.mark.parametrize("kind", READING)
def test_what_reading_there_cannot_promise(mount: Mounting, kind: str) -> None:
    mount("/srv", kind)
    storage = FSPermanentStorage("/srv/crashes")
    text = of_mount(kind, list(storage.reading_risks()))
    assert READING[kind] in text
    assert bool(READING[kind]) == bool(text)
    removing = of_mount(kind, list(storage.reading_risks(removing=True)))
    assert removing.startswith(text)
    assert (LOCKS in removing) == (kind.split(" ")[0] not in ("ext4", "fuseblk", "ceph"))


def test_an_image_that_fuse_shows_is_a_disk(mount: Mounting, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"")
    mount("/srv", "fuse rw", str(image))
    assert not list(FSPermanentStorage("/srv").durability_risks())
    mount("/srv", "fuse rw", str(tmp_path))  # a view of a directory
    assert list(FSPermanentStorage("/srv").durability_risks())


def test_many_mounts_are_one_text(mount: Mounting) -> None:
    for day in range(11, 20):
        mount(f"/srv/crashes/202611{day}", "nfs4 rw")
    mount("/srv/crashes/20261120", "fuse.sshfs rw")
    [risk] = FSPermanentStorage("/srv/crashes").durability_risks()
    assert risk.count(LOCKS) == 2
    assert "the mount /srv/crashes/20261111 and 8 more, of nfs4: " in risk
    both = PolyCrashStorage([InMemoryCrashStorage(), FSPermanentStorage("/srv/crashes")])
    assert len(list(both.reading_risks())) == len(list(both.durability_risks())) == 1


def warnings(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if "warning: fs://" in line]


def test_each_command_says_what_concerns_it(mount: Mounting, tmp_path: Path) -> None:
    plain, there = tmp_path / "plain", tmp_path / "there"
    crashes = [crash_of(contents(), f"{n:08x}{CRASH_ID[8:]}") for n in range(20)]
    for root in (plain, there):
        FSPermanentStorage(root).save_crashes(crashes)
    mount(there, "fuse.rclone rw")
    raw = tmp_path / "raw.json"
    raw.write_text("{}")
    new, moved = there / "new", tmp_path / "moved"
    said = {
        (): ("list", "-s", plain),
        (LATE,): ("list", "-s", there),
        (LATE, "again"): ("check", "-s", there, "-d", plain),
        (LATE, "third"): ("check", "-s", plain, "-d", there),
        (LATE, "fourth"): ("copy", "-s", there, "-d", tmp_path / "copied"),
        (UPLOADED, LOCKS): ("copy", "-s", plain, "-d", new),
        (UPLOADED, LOCKS, "again"): ("save", "-d", new, "--raw-crash", raw),
        (LATE, LOCKS): ("copy", "-s", there, "-d", moved, "--remove-source", "--limit", 3),
        (LATE, LOCKS, "again"): ("remove", "-s", there, crashes[-1].crash_id),
    }
    for texts, command in said.items():
        done = run(*map(str, command))
        assert done.exit_code in (0, 1), done.stderr
        found = warnings(done.stderr)
        assert len(found) == bool(texts), (command, done.stderr)
        for text in (LATE, UPLOADED, LOCKS):
            assert (text in "".join(found)) == (text in texts), (command, text)
    dry = run("copy", "-s", plain, "-d", there, "--dry-run")
    assert not warnings(dry.stderr)
    dry = run("copy", "-s", there, "-d", tmp_path / "dry", "--dry-run", "--remove-source")
    assert LOCKS not in "".join(warnings(dry.stderr))


def test_doctor_says_it_and_so_do_logs_for_machines(mount: Mounting, tmp_path: Path) -> None:
    mount(tmp_path, "fuse.rclone rw")
    reading = json.loads(run("doctor", "--json", "-s", tmp_path).stdout)
    assert [LATE in text for text in reading["warnings"]][:1] == [True]
    assert UPLOADED not in str(reading["warnings"])
    for option in ("--write", "--no-write"):
        saving = json.loads(run("doctor", "--json", option, "-d", tmp_path).stdout)
        assert saving["verdict"] == "warn"
        assert UPLOADED in saving["warnings"][0] and LATE in saving["warnings"][1]
    FSPermanentStorage(tmp_path / "a").save_crash(crash_of(contents()))
    quiet = run("--quiet", "--log-format", "json", "list", "-s", tmp_path / "a")
    messages = [json.loads(line) for line in quiet.stderr.splitlines()]
    assert [LATE in each["message"] for each in messages if each["level"] == "warning"] == [True]
