"""Processes of `bilstm-crf benchmark`: some do the work on given cores, others only keep cores busy."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, NamedTuple

from ..threads import usable_cpus

SPIN = """
import os
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:  # so that it ends if the benchmark is killed
    sum(range(10**6))
"""
"""Program of a process that keeps a core busy."""

CORE = "1 core"
"""Name of the first condition."""

_loaded: list[Any] = []  # in a worker, the result of its `load`


class Condition(NamedTuple):
    """Circumstances of a measurement."""

    cores: tuple[int, ...]
    """Cores that the process may use."""
    threads: int | None
    """Number of threads in which its libraries compute; None: they choose it, by the cores."""
    spinning: tuple[tuple[int, ...], ...]
    """Cores that each of the spinning processes may use."""


def usable_cores() -> tuple[int, ...]:
    """Return the cores that this process may use, as many as its control group has time for."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(usable_cpus())
    return tuple(sorted(cores))[: usable_cpus()]


def conditions_on(cores: tuple[int, ...]) -> dict[str, Condition]:
    """Return the conditions of the tables: idle cores, one spinning process on one of them, two for each of them.

    The last condition is a single thread, on any of the cores, beside as many spinning processes.
    """
    count = len(cores)
    crowd = (cores,) * (2 * count)
    beside = f"{len(crowd)} spinning beside"
    return {
        CORE: Condition(cores[:1], None, ()),
        f"all {count} cores": Condition(cores, None, ()),
        "1 spinning beside": Condition(cores, None, (cores[-1:],)),
        beside: Condition(cores, None, crowd),
        f"1 thread, {beside}": Condition(cores, 1, crowd),
    }


@contextmanager
def inherited(cores: tuple[int, ...], threads: int | None = None) -> Iterator[None]:
    """Let processes that start in the context run on these cores only, their libraries with this number of threads.

    Libraries take the number of their threads from the cores, or from `OMP_NUM_THREADS`, when they are loaded.
    """
    before = usable_cores(), os.environ.get("OMP_NUM_THREADS")
    _restrict(cores, None if threads is None else str(threads))
    try:
        yield
    finally:
        _restrict(*before)


def _restrict(cores: tuple[int, ...], threads: str | None) -> None:
    if hasattr(os, "sched_setaffinity"):  # elsewhere, all processes use all cores
        os.sched_setaffinity(0, cores)
    os.environ.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = threads


@contextmanager
def spinning(processes: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Keep cores busy in the context: each process spins on one of its cores. Yield the ids of the processes."""
    started: list[subprocess.Popen] = []
    try:
        for cores in processes:
            with inherited(cores):
                started.append(subprocess.Popen([sys.executable, "-S", "-c", SPIN], stdout=subprocess.PIPE))
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()  # it spins from now on
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.communicate()


@contextmanager
def workers(load: Callable[[], Any], conditions: dict[str, Condition]) -> Iterator[dict[str, Callable[..., Any]]]:
    """Start processes on the cores of the conditions; each calls `load` once.

    Yield a function for each condition, which runs `function(loaded, *arguments)` in the process; `loaded` is the
    result of `load`. All these functions are pickled.
    """
    with ExitStack() as stack:
        executors: dict[tuple, ProcessPoolExecutor] = {}
        for cores, threads, _ in conditions.values():
            if (cores, threads) not in executors:
                executor = ProcessPoolExecutor(1, get_context("spawn"), _load, (load,))
                executors[cores, threads] = stack.enter_context(executor)
                with inherited(cores, threads):
                    executor.submit(_call, type, ()).result()  # starts the process
        yield {name: _caller(executors[each.cores, each.threads]) for name, each in conditions.items()}


def _caller(executor: ProcessPoolExecutor) -> Callable[..., Any]:
    return lambda function, *arguments: executor.submit(_call, function, arguments).result()


def _load(load: Callable[[], Any]) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    _loaded.append(load())


def _end_with_parent() -> None:
    """Stop this process when the benchmark is killed, which the executor would not notice."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[..., Any], arguments: tuple) -> Any:
    return function(_loaded[0], *arguments)
