"""Files that are whole or absent, and the lock of a folder against other processes."""

import gc
import json
import math
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import keeping_out

from bilstm_crf_hf.utils.files import locked, to_json, write_atomically, write_json


@contextmanager
def child(work):
    """A forked process that has run a function."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        os.waitpid(pid, 0)


@pytest.mark.parametrize("name", ["", "out.jsonl"])
def test_another_process_is_kept_out_and_named(tmp_path, name):
    with keeping_out(tmp_path, name) as pid:
        message = rf"{tmp_path / name}: another process is at work here \(process {pid}, \S+\): wait for its end"
        with pytest.raises(BlockingIOError, match=message), locked(tmp_path, name):
            pass
        with locked(tmp_path, "other.jsonl"):
            pass
    with locked(tmp_path, name):
        assert [path.name for path in tmp_path.iterdir()] == [f".{name}.lock" if name else ".lock"]
    assert not list(tmp_path.iterdir())


def test_a_killed_process_loses_its_lock(tmp_path):
    with keeping_out(tmp_path) as pid:
        os.kill(pid, signal.SIGKILL)
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_contexts_of_a_process_may_be_nested_by_any_name_of_the_folder(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    with locked(folder):
        for other in (folder, Path(), tmp_path / "link", tmp_path / "link" / ".." / "out"):
            with locked(other):
                pass
            assert (folder / ".lock").exists()
    assert not (folder / ".lock").exists()


def test_a_forked_process_does_not_release_the_lock_of_its_parent(tmp_path):
    with locked(tmp_path):
        with child(gc.collect):
            pass
        script = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        command = [sys.executable, "-c", script, str(tmp_path / ".lock")]
        assert b"BlockingIOError" in subprocess.run(command, capture_output=True, check=False).stderr


def test_a_folder_that_was_made_for_the_lock_goes_unless_it_is_used(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "a" / "b"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "c"):
        (tmp_path / "c" / "result").touch()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["result"]


@pytest.mark.parametrize("folder", ["/sys/kernel", "/proc/self/x", "{tmp_path}/file/x"])
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, folder):
    (tmp_path / "file").touch()
    folder = folder.format(tmp_path=tmp_path)
    with (
        pytest.raises(OSError, match=r": nothing can be written here \(.+\): name another output"),
        locked(Path(folder)),
    ):
        pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (math.nan, "out.json: the value is nan"),
        ({"a": [1, {"b": math.inf}]}, r"out.json: a\[1\].b is inf"),
        ({"a": (0.5, -math.inf)}, r"out.json: a\[1\] is -inf"),
    ],
)
def test_json_never_holds_numbers_that_it_does_not_have(tmp_path, content, message):
    (tmp_path / "out.json").write_text("old")
    with pytest.raises(ValueError, match=message):
        write_json(tmp_path / "out.json", content)
    assert (tmp_path / "out.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["out.json"]


def test_json_comes_back_as_it_was(tmp_path):
    content = {"이름": ["손흥민", 0.1, None, True], "nested": {"a": 2**60}}
    write_json(tmp_path / "out.json", content)
    text = (tmp_path / "out.json").read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(to_json(content, "")) == content
    assert "손흥민" in text


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    (tmp_path / "out").write_text("old")
    read, write = os.pipe()

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            with write_atomically(tmp_path / "out") as file:
                file.write(bytes(2000))
        except OSError as error:
            os.write(write, str(error).encode())

    with child(fill):
        pass
    assert os.read(read, 1000).decode() == f"[Errno 27] File too large: '{tmp_path / 'out'}'"
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out").read_text() == "old"
