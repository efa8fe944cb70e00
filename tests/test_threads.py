"""Tests of the threads that work on batches."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bilstm_crf_hf.threads import _quota, lock_of_process, ordered_map, usable_cpus


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_results_are_in_order(workers, count):
    first = threading.Event()

    def work(i: int) -> int:
        if i == 0 and workers > 1 and count > 1:
            assert first.wait(10)  # the last of the first items is done before the first one
        if i == min(workers, count) - 1:
            first.set()
        return i * i

    assert list(ordered_map(work, range(count), workers)) == [i * i for i in range(count)]


def test_without_workers_the_calling_thread_works():
    assert set(ordered_map(lambda _: threading.current_thread(), range(4), 0)) == {threading.current_thread()}
    assert threading.current_thread() not in ordered_map(lambda _: threading.current_thread(), range(4), 1)


def test_threads_work_side_by_side():
    together = threading.Barrier(3)
    assert list(ordered_map(lambda _: together.wait(10) >= 0, range(3), 3)) == [True] * 3


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_an_error_comes_after_the_results_before_it(workers):
    results = ordered_map(lambda i: str(i) if i < 7 else 1 / 0, range(20), workers)
    assert [next(results) for _ in range(7)] == list("0123456")
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_no_item_is_begun_once_nobody_wants_the_results():
    begun, go_on = [], threading.Event()

    def work(i: int) -> int:
        begun.append(i)
        if i:
            assert go_on.wait(10)
        return i

    results = ordered_map(work, range(50), 2)
    assert next(results) == 0
    results.close()
    go_on.set()
    assert list(ordered_map(str, range(4), 2)) == list("0123")  # behind all that still runs
    assert len(begun) <= 4


def test_a_forked_process_has_threads_of_its_own():
    list(ordered_map(str, range(4), 2))
    assert exit_status_of(lambda: list(ordered_map(str, range(4), 2)) == list("0123")) == 0


def test_a_forked_process_does_not_wait_for_a_lock_of_another_thread():
    with lock_of_process("test"):
        assert exit_status_of(lambda: lock_of_process("test").acquire(timeout=5)) == 0


def exit_status_of(work: Callable[[], object]) -> int:
    """Run `work` in a forked process, for half a minute at most; return 0 if its result is true."""
    child = os.fork()
    if not child:
        signal.alarm(30)
        status = 1
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def test_few_pools_are_kept():
    before = threading.active_count()
    for workers in range(2, 12):
        assert list(ordered_map(str, range(3), workers)) == list("012")
    gc.collect()
    deadline = time.monotonic() + 30
    while threading.active_count() > before + 22 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before + 22


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_the_affinity_limits_the_cpus():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from bilstm_crf_hf.threads import usable_cpus; print(usable_cpus())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "1"


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_max", ".max").replace("cfs", "cpu.cfs")).write_text(content)


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", 2**31), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1)]
)
def test_a_quota_limits_the_cpus(quota, cpus, tmp_path):
    write(tmp_path / "cgroup" / "pod" / "task", cpu_max="max 100000\n")
    write(tmp_path / "cgroup" / "pod", cpu_max=f"{quota}\n")
    table = tmp_path / "table"
    table.write_text("0::/pod/task\n")
    assert _quota.__wrapped__(tmp_path / "cgroup", table) == cpus
    (tmp_path / "cgroup" / "cpu.max").write_text("100000 100000\n")  # of a container that does not show its path
    table.write_text("0::/elsewhere/pod\n")
    assert _quota.__wrapped__(tmp_path / "cgroup", table) == 1


def test_the_quota_of_the_first_version_of_control_groups_counts(tmp_path):
    write(tmp_path / "cpu" / "docker", cfs_quota_us="300000\n", cfs_period_us="100000\n")
    write(tmp_path / "cpu", cfs_quota_us="-1\n", cfs_period_us="100000\n")
    table = tmp_path / "table"
    table.write_text("5:memory:/docker\n4:cpu,cpuacct:/docker\n")
    assert _quota.__wrapped__(tmp_path, table) == 3


@pytest.mark.parametrize("content", ["no colons\n", "0::/\n"])
def test_groups_that_cannot_be_read_are_no_quota(content, tmp_path):
    write(tmp_path / "cgroup", cpu_max="many few\n")
    table = tmp_path / "table"
    table.write_text(content)
    assert _quota.__wrapped__(tmp_path / "cgroup", table) == 2**31


def test_a_system_without_control_groups_has_no_quota(tmp_path):
    assert _quota.__wrapped__(tmp_path, tmp_path / "none") == 2**31
    assert 1 <= usable_cpus() <= os.cpu_count()
