"""The package as it is installed from a wheel, without a clone."""

import compileall
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from bilstm_crf_hf.commands.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
SENTENCES = ["<손흥민:PS>은 <춘천:LC>에서 태어났다.", "<김연아:PS>는 <서울:LC>로 돌아왔다.", "정말 재미있는 영화였다."]
SMALL = {"embedding_size": 16, "hidden_size": 16, "ngram_buckets": 256, "ngram_embedding_size": 8}

pytestmark = pytest.mark.slow


def run(command: list[str | Path], folder: Path, **environment: str) -> str:
    """Run a command in a folder and return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        command, cwd=folder, env=inherited | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """The files of a clone that the wheel is built from."""
    folder = tmp_path_factory.mktemp("sources")
    parts = ("bilstm_crf_hf", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "LICENSES")
    listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *parts], ROOT)
    for name in listed.strip("\0").split("\0"):
        if (ROOT / name).is_file():  # else it has been deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    clone = shutil.copytree(sources, folder / "sources")
    compileall.compile_dir(clone / "bilstm_crf_hf", quiet=1)  # a clone that has been used
    run([sys.executable, "-m", "pip", "wheel", *options, clone], folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The only folder that has the package."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-index", "--target", folder]
    run([sys.executable, "-m", "pip", "install", *options, wheel], folder.parent)
    return folder


def test_the_wheel_has_every_file_of_the_package(sources, wheel):
    files = {path.relative_to(sources).as_posix() for path in (sources / "bilstm_crf_hf").rglob("*") if path.is_file()}
    names = {name for name in ZipFile(wheel).namelist() if name.startswith("bilstm_crf_hf/")}
    assert names == files
    data = ("py.typed", "hub/model_card_template.md", "inference/space/style.css", "inference/space/requirements.txt")
    assert {f"bilstm_crf_hf/{name}" for name in data} <= names


@pytest.mark.slow
def test_the_console_script_lists_all_commands(installed, tmp_path):
    listed = run([installed / "bin" / "bilstm-crf", "--help"], tmp_path, PYTHONPATH=str(installed))
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ")]
    assert names == list(COMMANDS)
    assert set(names) == {
        *("ner", "classify", "pretrain", "distill", "distill-classifier", "train-embeddings", "sweep", "compare"),
        *("analyze", "predict", "export-onnx", "convert", "publish", "demo", "benchmark", "tag", "calibrate"),
    }


@pytest.mark.slow
def test_the_console_script_tags_outside_of_a_clone_and_without_network(installed, tmp_path):
    environment = {
        "PYTHONPATH": str(installed),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
    }
    tagged = run([installed / "bin" / "bilstm-crf", "tag", "손흥민은 춘천에서 태어났다."], tmp_path, **environment)
    assert tagged == "<손흥민:PS>은 <춘천:LC>에서 태어났다.\n"


def test_the_wheel_names_the_licences_of_code_and_models_and_has_their_texts(wheel):
    archive = ZipFile(wheel)
    (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    assert "License-Expression: Apache-2.0 AND CC-BY-SA-4.0 AND CC0-1.0\n" in metadata
    texts = {name.partition("/licenses/")[2] for name in archive.namelist() if "/licenses/" in name}
    assert texts == {"LICENSE", "LICENSES/CC-BY-SA-4.0.txt", "LICENSES/CC0-1.0.txt"}


@pytest.mark.slow
def test_a_tagger_is_trained_outside_of_a_clone(installed, tmp_path):
    """Run the console script, after asserting where the package comes from."""
    environment = {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    code = "import bilstm_crf_hf; print(bilstm_crf_hf.__file__)"
    location = run([sys.executable, "-c", code], tmp_path, **environment)
    assert Path(location.strip()) == installed / "bilstm_crf_hf" / "__init__.py"
    files = []
    for split in ("train", "validation"):
        (tmp_path / f"{split}.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
        files += [f"--{split}_file", f"{split}.txt"]
    options = ["--config_overrides", json.dumps(SMALL), "--num_train_epochs", "1", "--use_cpu", "--output_dir", "out"]
    run([installed / "bin" / "bilstm-crf", "ner", *files, *options], tmp_path, **environment)
    results = json.loads((tmp_path / "out" / "all_results.json").read_text(encoding="utf-8"))
    assert (results["train_sentences"], results["validation_sentences"]) == (3, 3)
