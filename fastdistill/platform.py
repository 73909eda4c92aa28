"""The operating system: what POSIX and Windows have each in their own way, or not at all, and what a process may still take.

No other file asks which system this is, or uses a name that Windows lacks.  Linux and macOS run what stands here for POSIX.
What stands here for Windows agrees with the names that it has (`mypy --platform win32`) and has not been run there.
Nothing of the package is imported: the process that runs chat templates reads this file alone.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mmap
    import subprocess

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_ROOT = Path("/")  # of /proc and /sys, by which Linux says what a process may take


# ---- memory and CPUs


def total_memory() -> int | None:
    """Bytes of this machine's memory; None where nobody says."""
    return next((size << 10 for size in _numbers("proc/meminfo", "MemTotal:")), None)


def available_memory() -> int | None:
    """Bytes that this process may still take; None where nobody says, as on Windows and macOS.

    The least of what Linux calls available, what the control groups around this process leave, where pages of files
    that nobody reads count as free, and what its own limits of address space and of data leave.
    """
    left = [most << 10 for most in _numbers("proc/meminfo", "MemAvailable:")]
    for group in _control_groups("memory"):
        for limit, used, file_pages in (
            ("memory.max", "memory.current", "inactive_file "),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
        ):
            idle = sum(_numbers(group / "memory.stat", file_pages))
            for most, taken in zip(_numbers(group / limit), _numbers(group / used), strict=False):
                if most < 1 << 62:  # v1 says about 2^63 where there is no limit
                    left.append(most - max(0, taken - idle))
    if sys.platform != "win32":
        import resource

        for number, name in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
            most = resource.getrlimit(number)[0]
            if most != resource.RLIM_INFINITY:
                left += [most - (taken << 10) for taken in _numbers("proc/self/status", name)]
    return max(0, min(left)) if left else None


def available_cpus() -> int:
    """CPUs that this process may use: of its affinity mask, and the whole ones that the control groups around it grant."""
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for group in _control_groups("cpu"):
        v1 = _numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us")  # -1: no quota
        for numbers in (_numbers(group / "cpu.max"), v1):
            if len(numbers) == 2 and min(numbers) > 0:
                cpus = min(cpus, numbers[0] / numbers[1])
    return max(1, int(cpus))


def processor() -> str:
    """This CPU's name."""
    for line in _lines("proc/cpuinfo"):
        if line.startswith(("model name", "Model")):
            return line
    import platform  # Python's

    return platform.processor()


def _lines(name: str | Path) -> list[str]:
    """Of a file of /proc or /sys; none where there is no such file."""
    try:
        return (_ROOT / name).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _numbers(name: str | Path, title: str = "") -> list[int]:
    """Those that the line of a title holds; without one, all that stand in the file."""
    words = [word for line in _lines(name) if line.startswith(title) for word in line[len(title) :].split()]
    return [int(word) for word in words if word.isdecimal()]


def _control_groups(controller: str) -> Iterator[Path]:
    """The folders of the control groups that hold this process, v1's of a controller or v2's, as far as they are to be seen.

    A container sees its own group as the root of all, whatever /proc says of its path.
    """
    for line in _lines("proc/self/cgroup") or [f"0:{controller}:/", "0::/"]:
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = _ROOT / "sys/fs/cgroup" / (controller if controllers else "")
            parts = path.split("/")[1:]
            yield from (top.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def anonymous_map(size: int, huge: bool) -> mmap.mmap:
    """Zeros of so many bytes, taken as they are written, in huge pages if asked for and the system has some.  A fork gets its own.

    Raises
    ------
    OSError, OverflowError
    """
    import mmap

    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return mapped


# ---- files

_seeking = threading.Lock()  # where to read or write a file is, on Windows, the whole process's


def open_at_once(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file's bytes, which children do not get.  A pipe without a writer does not hold it up.

    Raises
    ------
    OSError, ValueError
    """
    if sys.platform == "win32":
        flags |= os.O_BINARY
    else:
        flags |= os.O_NONBLOCK
    return os.open(path, flags, 0o666)


def await_writer(descriptor: int, wait_long: Callable[[], None]) -> None:
    """Wait until somebody writes into a pipe that `open_at_once` has opened, and have reads of it wait from here on.

    Other files are ready.  `wait_long` is called once, after half a second.
    """
    if sys.platform != "win32":
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            import select

            writer = select.poll()
            writer.register(descriptor, select.POLLIN)
            if not writer.poll(500):
                wait_long()
                writer.poll()
        os.set_blocking(descriptor, True)


def read_at(descriptor: int, into: memoryview, offset: int) -> int:
    """Fill memory from a place of a file, as far as that goes at once; how many bytes.  Any number of threads may.

    Raises
    ------
    OSError
    """
    if sys.platform != "win32":
        return os.preadv(descriptor, [into], offset)
    with _seeking:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, min(len(into), 1 << 24))
    into[: len(data)] = data
    return len(data)


def write_at(descriptor: int, data: memoryview, offset: int) -> int:
    """Write at a place of a file, as much as goes at once; how many bytes.

    Raises
    ------
    OSError
    """
    if sys.platform != "win32":
        return os.pwrite(descriptor, data, offset)
    with _seeking:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)


def synchronise(path: Path) -> None:
    """Have what a file, or a folder's list of names, holds on the disk: it outlives the machine's power.

    Windows keeps lists of names by itself.

    Raises
    ------
    OSError
    """
    if sys.platform == "win32" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_folder(made: Path, target: Path) -> None:
    """Give a folder a name that is free, or an empty folder's.

    Raises
    ------
    OSError
    """
    if sys.platform == "win32":  # which renames to free names alone
        with suppress(FileNotFoundError):
            os.rmdir(target)
    os.rename(made, target)


def lock(descriptor: int, wait: bool) -> None:
    """Hold an open file, or on POSIX a folder, until its descriptor is closed; the system takes it from those who die.

    Raises
    ------
    BlockingIOError
        where another has it, if told not to wait
    OSError
        of a file system without locks
    """
    if sys.platform == "win32":
        while True:
            try:
                return msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except PermissionError:
                if not wait:
                    raise BlockingIOError(errno.EWOULDBLOCK, "another process has it") from None
                time.sleep(0.1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(folder: Path, wait: bool) -> Iterator[bool]:
    """Hold a folder's lock, which the system takes from those who die; whether the folder is there.

    Windows opens no folder: there a file beside it stands for it meanwhile.

    Raises
    ------
    OSError
        where another has it, if told not to wait
    """
    beside = folder.with_name(f".{folder.name}.lock")
    try:
        if sys.platform == "win32":
            os.stat(folder)
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT)
        else:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            lock(descriptor, wait)
        except OSError:  # held by another; or a file system without locks, where dead folders stay
            if not wait:
                raise
        there = os.path.isdir(folder)
        yield there and (sys.platform == "win32" or os.path.samestat(os.stat(folder), os.fstat(descriptor)))
    finally:
        os.close(descriptor)
        if sys.platform == "win32":
            with suppress(OSError):  # another one has it open, who removes it
                os.unlink(beside)


# ---- processes

PIPE_CLOSED = 128 + 13  # what a shell calls the end of a process that wrote where nobody reads: by SIGPIPE
# Of `subprocess.Popen`: Ctrl-C in the terminal is not for that process.
APART: dict[str, Any]
# Its return code, where it took more time than `bounded` or `overseen` gave it.
OUT_OF_TIME: int
if sys.platform == "win32":
    APART, OUT_OF_TIME = {"creationflags": 0x200}, 124  # CREATE_NEW_PROCESS_GROUP
else:
    APART, OUT_OF_TIME = {"start_new_session": True}, -signal.SIGPROF


def in_forked_child(function: Callable[[], None]) -> None:
    """Have a function called at the beginning of each child that is forked, where processes fork."""
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=function)


def around_forks(before: Callable[[], object], after: Callable[[], object]) -> None:
    """Have functions called before each fork, and after it on both sides, where processes fork."""
    if sys.platform != "win32":
        os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)


def used_memory() -> int:
    """Bytes of this process's address space; 1 GB where nobody says."""
    return next((size << 10 for size in _numbers("proc/self/status", "VmSize:")), 1 << 30)


def shut_in() -> None:
    """Let this process open nothing, start nothing and write to no file from here on.  Windows has no such limits."""
    if sys.platform != "win32":
        import resource

        for what in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            resource.setrlimit(what, (0, 0))


@contextmanager
def bounded(memory: int, seconds: float) -> Iterator[None]:
    """A block in which this process has an address space of so many bytes, and so much processor time, after which it ends.

    Python raises MemoryError where there is no more.  macOS bounds the time alone.  Windows bounds neither, and leaves the
    time to the parent: `overseen`.
    """
    if sys.platform == "win32":
        yield
        return
    import resource

    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    most = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory if most[0] == resource.RLIM_INFINITY else min(memory, most[0])
    resource.setrlimit(resource.RLIMIT_AS, (limit, most[1]))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, most)


@contextmanager
def overseen(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """A block in which a child works that has `bounded` itself; on Windows, this process ends it after so many seconds by the clock."""
    if sys.platform != "win32":
        yield
        return
    timer = threading.Timer(seconds, os.kill, (process.pid, OUT_OF_TIME))  # which is there to end it with that code
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
