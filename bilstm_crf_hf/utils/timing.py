"""Times of functions that run in turn."""

import gc
import time
from collections.abc import Callable
from statistics import median

import torch

SHORTEST = 0.05
"""Seconds of a turn; a function that is faster runs several times in it."""


def medians(
    candidates: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the median seconds of each candidate by a clock; the candidates take turns, `rounds` times."""
    repeats = {name: max(1, round(SHORTEST / seconds_of(run))) for name, run in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            gc.collect()
            seconds[name].append(seconds_of(run, repeats[name], clock))
    return {name: median(values) for name, values in seconds.items()}


def seconds_of(run: Callable[[], object], repeats: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the mean seconds of `repeats` calls, until the accelerator, if there is one, has finished their work."""
    synchronize()
    start = clock()
    for _ in range(repeats):
        run()
    synchronize()
    return (clock() - start) / repeats


def synchronize() -> None:
    """Wait until the accelerator, if there is one, has finished its work."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
