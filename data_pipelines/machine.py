"""What this machine offers, and files that are whole whatever happens to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Where Linux keeps the limits of a container, by either version of control groups.
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """CPUs that this process may use, those of its container at most; at least 1."""
    try:
        given = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        given = os.cpu_count() or 1
    # Microseconds of CPU that it gets, and in how many; -1 for no limit.
    older = _numbers("cpu/cpu.cfs_quota_us") + _numbers("cpu/cpu.cfs_period_us")
    match _numbers("cpu.max") or older:
        case (quota, period) if quota > 0:
            return max(1, min(given, quota // period))
    return given


def free_memory() -> int:
    """Bytes that processes may still take, those of their container at most."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        free = page * os.sysconf("SC_AVPHYS_PAGES")
        # Pages of files that were read count as used, but are given up on demand.
        free = max(free, _stated(Path("/proc/meminfo"), "MemAvailable:") * 1024)
    except (ValueError, OSError):  # not on Linux
        free = page * os.sysconf("SC_PHYS_PAGES")
    for limit, used, kept in (
        ("memory.max", "memory.current", "memory.stat inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes",
         "memory/memory.stat total_inactive_file"),
    ):  # fmt: skip
        most, now = _numbers(limit), _numbers(used)
        if most and now:
            file, _, key = kept.partition(" ")
            taken = now[0] - _stated(_CONTROL_GROUP / file, key)
            free = min(free, max(0, most[0] - taken))
    return free


def _numbers(name: str) -> tuple[int, ...]:
    """Those in a file of the control group; () where it is not there or sets no limit."""
    try:
        words = (_CONTROL_GROUP / name).read_text(encoding="ascii").split()
        return tuple(int(word) for word in words)
    except (OSError, ValueError):
        return ()


def _stated(path: Path, key: str) -> int:
    """The number behind a word of a file, 0 without the word. Raises OSError without the file."""
    words = path.read_text(encoding="ascii").split()
    return int(words[words.index(key) + 1]) if key in words else 0


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write, which takes its place once it is written.

    Where writing fails, it is gone; a killed process leaves it behind. Its name starts with a dot
    and ends in ".partial".
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` as a whole: a reader sees the old text or the new, never a part.

    The text is on the disk before this returns.
    """
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
