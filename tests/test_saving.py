"""Tests of saving: as a whole, by one process at a time, and without remains of an earlier model."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from conftest import new_tagger
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification, PreTrainedModel

SHARDED = {"max_shard_size": "10KB"}


def weights(folder: Path) -> set[str]:
    """Return the names of all files but the code and the configuration."""
    return {path.name for path in folder.iterdir() if path.suffix != ".py" and path.name != "config.json"}


def same(model, other) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.fixture(scope="module")
def pair(tokenizer):
    """Two models with the same configuration and different weights."""
    return new_tagger(tokenizer, seed=1), new_tagger(tokenizer, seed=2)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize("arguments", [(True, None, False, "10KB"), (True, None, False, "5GB", "fp16")])
def test_positional_arguments_are_those_of_transformers(tagger, arguments, tmp_path):
    """Compare the weights that `PreTrainedModel.save_pretrained` itself writes."""
    tagger.save_pretrained(tmp_path / "ours", *arguments)
    PreTrainedModel.save_pretrained(tagger, tmp_path / "theirs", *arguments)
    ours = weights(tmp_path / "ours")
    assert ours == weights(tmp_path / "theirs")
    for name in ours:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


def test_given_weights_are_saved(pair, tmp_path):
    pair[0].save_pretrained(tmp_path, state_dict=pair[1].state_dict())
    assert same(AutoModelForTokenClassification.from_pretrained(tmp_path), pair[1])


def test_other_processes_than_the_main_one_write_nothing(tagger, tmp_path):
    tagger.save_pretrained(tmp_path / "new", False)
    assert not (tmp_path / "new").exists()
    tagger.save_pretrained(tmp_path)
    (tmp_path / ".saving-of-the-main-process").mkdir()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    tagger.save_pretrained(tmp_path, is_main_process=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_configuration_that_does_not_fit_the_weights_is_not_saved(tokenizer, tmp_path):
    model = new_tagger(tokenizer)
    model.save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    model.config.hidden_size = 30
    with pytest.raises(ValueError, match="hidden_size is 30, but the weights have 24"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


# ---------------------------------------------------------------- what a save supersedes


@pytest.mark.parametrize("first", [{}, SHARDED, {"max_shard_size": "30KB"}], ids=["one", "many", "few"])
@pytest.mark.parametrize("second", [{}, SHARDED, {"max_shard_size": "30KB"}], ids=["one", "many", "few"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_save_removes_the_weights_of_an_earlier_one(pair, first, second, variant, tmp_path):
    pair[0].save_pretrained(tmp_path, variant=variant, **first)
    pair[1].save_pretrained(tmp_path, variant=variant, **second)
    pair[1].save_pretrained(tmp_path / "alone", variant=variant, **second)
    assert len(weights(tmp_path) - {"alone"}) == len(weights(tmp_path / "alone"))
    assert same(AutoModelForTokenClassification.from_pretrained(tmp_path, variant=variant), pair[1])


def test_a_variant_and_the_usual_weights_stand_side_by_side(pair, tmp_path):
    pair[0].save_pretrained(tmp_path, variant="fp16")
    pair[1].save_pretrained(tmp_path)
    assert same(AutoModelForTokenClassification.from_pretrained(tmp_path, variant="fp16"), pair[0])
    assert same(AutoModelForTokenClassification.from_pretrained(tmp_path), pair[1])


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model.bin.index.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-0a1b2c3d-00001-of-00002.safetensors",
        "adapter_config.json",
        "adapter_model.safetensors",
    ],
)
def test_a_save_removes_every_form_of_older_weights(tagger, name, tmp_path):
    (tmp_path / name).write_text("{}", encoding="utf-8")
    tagger.save_pretrained(tmp_path)
    assert weights(tmp_path) == {"model.safetensors"}
    assert same(AutoModelForTokenClassification.from_pretrained(tmp_path), tagger)


def test_a_save_keeps_all_other_files(tagger, tmp_path):
    others = {
        "model.onnx",
        "model_card.md",
        "tokenizer.json",
        "training_weights.safetensors",
        "model.fp16.safetensors",
        "my-model.safetensors",
        "model_best.bin",
        "README.md",
    }
    for name in others:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    (tmp_path / "checkpoint-1").mkdir()
    tagger.save_pretrained(tmp_path)
    assert weights(tmp_path) == others | {"model.safetensors", "checkpoint-1"}


@pytest.mark.parametrize("first", [{}, SHARDED], ids=["one", "many"])
@pytest.mark.parametrize("second", [{}, SHARDED], ids=["one", "many"])
def test_after_each_step_of_a_save_one_of_the_models_can_be_loaded(pair, first, second, tmp_path, monkeypatch):
    """Copy the folder before and after each file is moved or removed; every copy is one of the two models."""
    pair[0].save_pretrained(tmp_path / "model", **first)
    copies = []

    def copying(method):
        def wrapper(path, *args, **kwargs):
            result = method(path, *args, **kwargs)
            if path.name.endswith((".safetensors", ".json")):
                copies.append(tmp_path / f"copy{len(copies)}")
                ignored = shutil.ignore_patterns(".saving*")
                shutil.copytree(tmp_path / "model", copies[-1], ignore=ignored)
            return result

        return wrapper

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, copying(getattr(Path, name)))
        pair[1].save_pretrained(tmp_path / "model", **second)
    loaded = [AutoModelForTokenClassification.from_pretrained(copy) for copy in copies]
    which = [same(model, pair[1]) for model in loaded]
    assert all(new or same(model, pair[0]) for new, model in zip(which, loaded, strict=True))
    assert which == sorted(which)
    assert which[-1]


# ---------------------------------------------------------------- several processes

SAVE = """
    import sys, time
    from pathlib import Path
    import torch
    from bilstm_crf_hf import BiLSTMCRFForTokenClassification
    source, target, value, main = sys.argv[1:]
    model = BiLSTMCRFForTokenClassification.from_pretrained(source)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float(value))
    model.config.embedding_norm = float(value)
    Path(target, f"ready{value}{main}").touch()
    while not Path(target, "start").exists():
        time.sleep(0.01)
    for _ in range(8):
        model.save_pretrained(Path(target, "model"), is_main_process=main == "main")
"""


@pytest.mark.slow
def test_processes_that_save_at_once_leave_one_of_the_models(tagger, tmp_path):
    """Two main processes with different weights and one other process save eight times each."""
    tagger.save_pretrained(tmp_path / "source")
    ranks = [("1", "main"), ("2", "main"), ("3", "other")]
    command = [sys.executable, "-c", textwrap.dedent(SAVE), str(tmp_path / "source"), str(tmp_path)]
    processes = [subprocess.Popen([*command, *rank], stderr=subprocess.PIPE, text=True) for rank in ranks]
    while len(list(tmp_path.glob("ready*"))) < len(ranks) and all(process.poll() is None for process in processes):
        pass
    (tmp_path / "start").touch()
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "model")
    (value,) = {parameter.unique().item() for parameter in model.parameters()}
    assert value in (1, 2)
    assert model.config.embedding_norm == value
    tagger.save_pretrained(tmp_path / "alone")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        path.name for path in (tmp_path / "alone").iterdir()
    }


# ---------------------------------------------------------------- broken and interrupted


def test_truncated_weights_are_an_error(tagger, tmp_path):
    tagger.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(OSError, match=rf"{tmp_path}.*model.safetensors is cut off"):
        AutoModelForTokenClassification.from_pretrained(tmp_path)


def test_a_folder_that_is_no_model_is_an_error(tmp_path):
    with pytest.raises((OSError, ValueError), match="config.json"):
        AutoModelForTokenClassification.from_pretrained(tmp_path)


@pytest.mark.slow
def test_save_killed_half_way_leaves_the_earlier_model_whole(tagger, tokenizer, tmp_path):
    """Kill a second process while it saves other weights into the folder."""
    tagger.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code = f"""
        import os, signal
        import transformers.modeling_utils as utils
        from bilstm_crf_hf import BiLSTMCRFForTokenClassification
        model = BiLSTMCRFForTokenClassification.from_pretrained({str(tmp_path)!r})
        model.classifier.weight.data.zero_()
        write = utils.safe_save_file
        def write_half(tensors, filename, **kwargs):
            write(tensors, filename, **kwargs)
            os.truncate(filename, os.path.getsize(filename) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        utils.safe_save_file = write_half
        model.save_pretrained({str(tmp_path)!r})
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name[:7] != ".saving"} == before
    tagger.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(before)
    assert load_file(tmp_path / "model.safetensors").keys() == tagger.state_dict().keys()


def test_failed_save_leaves_nothing_behind(tagger, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(OSError, match="No space left"):
        tagger.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []
