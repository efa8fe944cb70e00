"""Commands that share an output: the second one is refused at once, before it reads anything."""

import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from conftest import SENTENCES, keeping_out

from bilstm_crf_hf.utils.files import locked

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = ["--config_overrides", '{"embedding_size": 16, "hidden_size": 16, "ngram_buckets": 256}', "--use_cpu", "true"]
SPLITS = ["--train_file", "no.txt", "--validation_file", "no.txt"]
TEACHERS = ["--teachers", "no", "--unlabeled_file", "no.txt"]

COMMANDS = {
    "ner": [*SPLITS, "--output_dir", "out"],
    "classify": [*SPLITS, "--output_dir", "out"],
    "pretrain": ["--input_file", "no.txt", "--output_dir", "out"],
    "distill": [*SPLITS, *TEACHERS, "--output_dir", "out"],
    "distill_classifier": [*SPLITS, *TEACHERS, "--output_dir", "out"],
    "analyze": ["--model_name_or_path", "no", "--validation_file", "no.txt", "--output_dir", "out"],
    "calibrate": ["--model_name_or_path", "out", "--validation_file", "no.txt"],
    "compare": ["empty", "--output_dir", "out"],
    "sweep": ["sweep.yaml", "--output_dir", "out"],
    "export_onnx": ["no", "--file", "no.txt", "--output_dir", "out"],
    "publish": ["out", "name/model"],
    "convert": ["no", "out/new"],
    "predict": ["--model_name_or_path", "no", "--input_file", "in.txt", "--output_file", "out/new"],
    "train_embeddings": ["--input_file", "no.txt", "--output_file", "out/new"],
}
"""Arguments that name no model and no data that exist, by commands."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_refused_before_anything_is_read(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("서울")
    (tmp_path / "empty").mkdir()
    (tmp_path / "sweep.yaml").write_text("config: base.yaml\nruns: {a: {}}")
    (tmp_path / "base.yaml").write_text("seed: 1")
    suffix = {"predict": ".jsonl", "train_embeddings": ".bin"}.get(command, "")
    arguments = [f"{value}{suffix}" if value == "out/new" else value for value in COMMANDS[command]]
    name = f"new{suffix}" if "out/new" in COMMANDS[command] else ""
    main = import_module(f"bilstm_crf_hf.commands.{command}").main
    with keeping_out(tmp_path / "out", name) as pid:
        with pytest.raises((BlockingIOError, SystemExit)) as error:  # SystemExit: of argparse, after its message
            main(arguments)
        message = f"{tmp_path / 'out' / name}: another process is at work here (process {pid}"
        assert message in str(error.value) + capsys.readouterr().err
        assert len(list((tmp_path / "out").iterdir())) == 1


def start(folder: Path) -> subprocess.Popen:
    """Train on a few sentences for many epochs."""
    command = [sys.executable, str(RECIPES / "ner.py"), *SMALL, "--output_dir", "run", "--num_train_epochs", "5000"]
    command += ["--train_file", "data.txt", "--validation_file", "data.txt"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_folder_has_one_training_at_a_time(tmp_path):
    """The second one is refused, and the folder is free once the first one is killed."""
    (tmp_path / "data.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    first = start(tmp_path)
    try:
        while not (tmp_path / "run" / ".lock").exists():
            assert first.poll() is None, first.stderr.read().decode()
            time.sleep(0.05)
        second = start(tmp_path)
        assert f"run: another process is at work here (process {first.pid}, ".encode() in second.communicate()[1]
        assert second.returncode == 1
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    with locked(tmp_path / "run"):
        pass
