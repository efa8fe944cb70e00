"""Models of runs that become models of the package; tests/models is about those that are in it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import finish_run
from safetensors.torch import load_file

from bilstm_crf_hf import load_pipeline, models
from bilstm_crf_hf.hub.packaging import add_model, run_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tagger, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    return finish_run(tagger, tokenizer, folder, train_file="/home/user/secret/train.txt")


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An empty folder in place of that of the models."""
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_weights_are_rounded_to_bfloat16_and_loaded_in_float32(dtype, run, tagger, package, tmp_path):
    """Also of a run whose weights would be loaded in bfloat16."""
    copy = shutil.copytree(run, tmp_path / "runs" / dtype)
    config = (copy / "config.json").read_text("utf-8")
    (copy / "config.json").write_text(config.replace('"float32"', f'"{dtype}"'), "utf-8")
    assert add_model(copy, "tiny") == package / "tiny"
    stored = load_file(package / "tiny" / "model.safetensors")
    # Trust in the code of other models changes nothing: this one has none.
    loaded = load_pipeline("tiny", device="cpu", trust_remote_code=True).model.state_dict()
    assert loaded.keys() == tagger.state_dict().keys()
    for name, original in tagger.state_dict().items():
        if original.is_floating_point():
            assert stored[name].dtype == torch.bfloat16
            assert loaded[name].dtype == torch.float32
            assert torch.equal(loaded[name], original.bfloat16().float())
        else:
            assert torch.equal(loaded[name], original)


def test_the_folder_has_no_code_and_names_no_folder_of_this_machine(run, package):
    folder = add_model(run, "tiny")
    assert not list(folder.rglob("*.py"))
    assert json.loads((folder / "training_run.json").read_text("utf-8"))["arguments"]["train_file"] == "train.txt"
    for path in folder.glob("*.json"):
        assert "secret" not in path.read_text("utf-8")
    card = (folder / "README.md").read_text("utf-8")
    assert '`bilstm_crf_hf.load_pipeline("tiny")`' in card
    assert 'model="bilstm-crf-hf/tiny", revision="v1"' in card


def test_a_model_that_is_there_is_not_replaced(run, package):
    (package / "tiny").mkdir()
    with pytest.raises(FileExistsError, match="delete it first"):
        add_model(run, "tiny")
    assert not list((package / "tiny").iterdir())


def test_the_copy_for_a_publication_has_code_and_the_name_of_its_repository(run, package):
    folder = add_model(run, "tiny")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with run_folder("tiny", "somebody/tagger", "v2") as copy:
        assert {path.name for path in run.glob("*.py")} == {path.name for path in copy.glob("*.py")}
        card = (copy / "README.md").read_text("utf-8")
    assert 'model="somebody/tagger", revision="v2"' in card
    assert "bilstm-crf-hf/" not in card
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    with run_folder(str(run), "somebody/tagger", "v2") as same:
        assert same == run
