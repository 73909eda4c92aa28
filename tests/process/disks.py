"""Small disks and read-only ones: mounts of a forked process alone, that go with it."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

from tests.process.children import in_child

PAGE = os.sysconf("SC_PAGESIZE")  # what a tmpfs gives its room in
_NEW_MOUNTS, _NEW_USERS = 0x20000, 0x10000000  # linux/sched.h
_READ_ONLY, _REMOUNT, _RECURSIVE, _PRIVATE = 1, 32, 1 << 14, 1 << 18  # linux/mount.h
_LIBC = ctypes.CDLL(None, use_errno=True)


def _called(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def own_mounts() -> None:
    """From here on what this process mounts is its own: as root, or as the root of its own users where the system lets it be.

    Raises
    ------
    OSError
    """
    user, group = os.geteuid(), os.getegid()
    _called("unshare", _NEW_MOUNTS if user == 0 else _NEW_MOUNTS | _NEW_USERS)
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _called("mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None)


def mount(folder: Path, pages: int, files: int = 0) -> None:
    """A disk of so many pages and, if it is not 0, of so many files and folders, itself the first."""
    _called("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={pages * PAGE},nr_inodes={files}".encode())


def resize(folder: Path, pages: int, files: int = 0) -> None:
    _called(
        "mount", b"tmpfs", os.fsencode(folder), b"tmpfs", _REMOUNT, f"size={pages * PAGE},nr_inodes={files}".encode()
    )


def make_read_only(folder: Path) -> None:
    _called("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", _REMOUNT | _READ_ONLY, None)


def unmount(folder: Path) -> None:
    _called("umount2", os.fsencode(folder), 0)


def used(folder: Path) -> tuple[int, int]:
    """Pages, and files and folders, itself among them."""
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize // PAGE, found.f_files - found.f_ffree


@functools.cache
def why_none(folder: str) -> str:
    """Why there can be no such disks here, nothing where there can."""

    def attempted():
        try:
            own_mounts()
            mount(Path(folder), 1)
        except OSError as error:
            return str(error)
        return ""

    return in_child(attempted)
