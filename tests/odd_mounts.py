# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Mounts of a kind, with options, for slow tests of what is special about each."""

import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from tests.mounting import image_of, loop_device, mounted, served
from tests.servers.s3 import rclone

Lend = Callable[..., Path]
"""Mounts a kind with options, until the test ends; returns the directory."""

Mount = AbstractContextManager[Path]

_IMAGE_MB = 64
_BTRFS_MB = 320
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")


def behind(there: Path) -> Path:
    """Return the directory that bindfs, sshfs or rclone shows."""
    return there.with_name("behind")


def _bindfs(base: Path, *options: str) -> Mount:
    return served(base / "there", "bindfs", "-f", *options, base / "behind")


def _sshfs(base: Path, *options: str) -> Mount:
    """OpenSSH's server of files, without the ssh between it and the client."""
    server = next(filter(shutil.which, SFTP_SERVERS), SFTP_SERVERS[0])
    (base / "ssh").write_text(f"#!/bin/sh\nexec {server}\n")
    (base / "ssh").chmod(0o700)
    ssh = ["sshfs", "-f", "-o", f"ssh_command={base}/ssh", *options, f"host:{base}/behind"]
    return served(base / "there", *ssh)


def _rclone(base: Path, *options: str) -> Mount:
    cache: list[str | Path] = ["--config", "", "--cache-dir", base / "cache"]
    return served(base / "there", rclone(), "mount", *cache, *options, base / "behind")


@contextmanager
def _exfat(base: Path, *options: str) -> Iterator[Path]:
    image = image_of(base / "image", _IMAGE_MB, "mkfs.exfat")
    # It stays in the foreground only if it logs each call.
    quiet = ["sh", "-c", 'exec mount.exfat-fuse -d "$@" >/dev/null 2>&1', "exfat"]
    with ExitStack() as stack:
        with loop_device(image) as device:
            there = stack.enter_context(served(base / "there", *quiet, *options, device))
        yield there


def _ntfs(base: Path, *options: str) -> Mount:
    image = image_of(base / "image", _IMAGE_MB, "mkntfs", "-F", "-Q", "-q")
    return served(base / "there", "ntfs-3g", "-o", "no_detach", *options, image)


@contextmanager
def _btrfs(base: Path, *options: str) -> Iterator[Path]:
    image = image_of(base / "image", _BTRFS_MB, "mkfs.btrfs", "-q")
    with mounted(base / "there", "mount", "-o", ",".join(["loop", *options]), image) as there:
        yield there


@contextmanager
def _overlay(base: Path, *options: str) -> Iterator[Path]:
    """Over Btrfs, whose listings it has then."""
    (base / "disk").mkdir()
    with _btrfs(base / "disk") as disk:
        for name in ("lower", "upper", "work"):
            (disk / name).mkdir()
        layers = f"lowerdir={disk}/lower,upperdir={disk}/upper,workdir={disk}/work"
        words = ["mount", "-t", "overlay", "overlay", "-o", ",".join([layers, *options])]
        with mounted(base / "there", *words) as there:
            yield there


_MOUNTS: dict[str, Callable[..., Mount]] = {
    "bindfs": _bindfs,
    "btrfs": _btrfs,
    "exfat": _exfat,
    "ntfs-3g": _ntfs,
    "overlay": _overlay,
    "rclone": _rclone,
    "sshfs": _sshfs,
}

TOOL_OF = {"overlay": "btrfs", "rclone": "rclone-mount"}
"""What a kind is called among `TOOLS`, where that is not the same."""


def mount(kind: str, base: Path, *options: str) -> Mount:
    """Mount a kind below an empty directory.

    :raises CannotMount: it cannot be mounted here
    """
    (base / "behind").mkdir()
    return _MOUNTS[kind](base, *options)


def files_below(root: Path) -> list[Path]:
    """Return all files, hidden ones, too."""
    return [path for path in root.rglob("*") if not path.is_dir()] if root.exists() else []


def modes_below(root: Path) -> set[int]:
    """Return the modes of all files."""
    found = files_below(root)
    assert found
    return {stat.S_IMODE(path.stat().st_mode) for path in found}
