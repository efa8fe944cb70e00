"""Readers on mutated files: they read all rows, or refuse the file by its name, and never crash."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import FAULTY, FORMATS

SEED, MUTATIONS = 20261126, 2000


def fuzz(formats: list[str], seed: int, count: int, folder: Path) -> list[str]:
    """Return the failures of some formats, in a process that is started again after a crash."""
    output, failures = folder / "failures.jsonl", []
    output.touch()
    while formats:
        script = Path(sys.modules["fuzzing"].__file__)
        command = [sys.executable, script, output, str(seed), "0", str(count), *formats]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        finished = {name for name, mutation, _ in lines if mutation is None}
        formats = [name for name in formats if name not in finished]
        if result.returncode:
            assert formats, result.stderr
            failures.append(f"{output.with_suffix('.now').read_text()}: exit code {result.returncode}, {result.stderr}")
            del formats[0]
    return failures + [f"{name} {seed} {mutation}: {fault}" for name, mutation, fault in lines if mutation is not None]


@pytest.mark.slow
def test_a_mutated_file_is_read_whole_or_refused_by_name(tmp_path):
    assert not fuzz(list(FORMATS), SEED, MUTATIONS, tmp_path)


def test_the_fuzzer_finds_lost_rows_foreign_exceptions_and_crashes(tmp_path):
    failures = fuzz(list(FAULTY), SEED, 1, tmp_path)
    assert {failure.split()[0] for failure in failures} == set(FAULTY)
    assert any("exit code -6" in failure for failure in failures)
