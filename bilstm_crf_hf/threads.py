"""Threads that work on batches. This file is copied into exported model repositories and beside ONNX graphs."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use: its affinity, limited by the quota of its control group."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, _quota()))


@cache
def _quota(mounts: Path = Path("/sys", "fs", "cgroup"), table: Path = Path("/proc", "self", "cgroup")) -> int:
    """Return the smallest quota of the control groups (version 1 or 2) around this process, rounded up to whole CPUs.

    Without a quota that can be read, as outside of Linux, the result is larger than any number of CPUs.
    """
    try:
        return min(_quotas(mounts, table), default=2**31)
    except (OSError, ValueError):  # a system that hides the groups, or writes them in another way
        return 2**31


def _quotas(mounts: Path, table: Path) -> Iterator[int]:
    """Yield the quotas of the control groups around this process."""
    for line in table.read_text().splitlines() if table.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root, names = mounts, ["cpu.max"]
        if controllers:
            root, names = mounts / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        # In a container, the path may be that on the host, which its mounts do not show.
        for folder in {root, *(root / parent for parent in Path(path.lstrip("/"), "_").parents)}:
            files = [folder / name for name in names]
            values = [word for file in files if file.exists() for word in file.read_text().split()]
            if len(values) == 2 and values[0] not in ("max", "-1"):
                yield -(-int(values[0]) // int(values[1]))


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    prepare: Callable[[ThreadPoolExecutor, int], Any] | None = None,
) -> Iterator[Result]:
    """Return the results of `function` in the order of `items`; an error is raised in the place of its result.

    Args:
        workers: number of threads, which are kept for further calls; 0: the calling thread works on the items.
        prepare: function that gets each new pool of threads and their number.
    """
    return _pool(os.getpid(), workers, prepare).map(function, items) if workers else map(function, items)


def lock_of_process(name: str) -> Lock:
    """Return the lock of a name in this process: a fork must not inherit a lock that another thread holds."""
    return _LOCKS.setdefault((os.getpid(), name), Lock())


_LOCKS: dict[tuple[int, str], Lock] = {}


@lru_cache(maxsize=2)
def _pool(process: int, workers: int, prepare: Callable[[ThreadPoolExecutor, int], Any] | None) -> ThreadPoolExecutor:
    """Return the threads of a process, which do not survive a fork."""
    pool = ThreadPoolExecutor(workers, "batches")
    if prepare is not None:
        prepare(pool, workers)
    return pool
