"""The commands by their names, and the launchers in a clone."""

import configparser
import json
import re
import runpy
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from bilstm_crf_hf.commands.__main__ import COMMANDS, EXTRAS, main

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_begins_with_its_docstring(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bilstm-crf"])
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    module = sys.modules[f"bilstm_crf_hf.commands.{name.replace('-', '_')}"]
    usage, description = capsys.readouterr().out.split("\n\n", 1)
    assert usage.startswith(f"usage: bilstm-crf {name} ")
    assert description.startswith(module.__doc__.strip())


def test_an_unknown_command_is_refused_with_the_list_of_commands():
    with pytest.raises(SystemExit, match="there is no command 'nar'\n(.|\n)*  ner "):
        main(["nar"])


def test_a_command_without_its_extra_names_the_extra():
    needed = {
        "compare": ("matplotlib", "plot"),
        "demo": ("gradio", "demo"),
        "export-onnx": ("onnxruntime", "onnx"),
        "train-embeddings": ("gensim", "embeddings"),
    }
    code = """
import json, sys
from bilstm_crf_hf.commands.__main__ import main
messages = {}
for command, module in json.loads(sys.argv[1]).items():
    sys.modules[module] = None  # importing it raises ModuleNotFoundError
    try:
        main([command, "--help"])
    except SystemExit as end:
        messages[command] = end.code
print(json.dumps(messages))
"""
    modules = json.dumps({command: module for command, (module, _) in needed.items()})
    done = subprocess.run([sys.executable, "-c", code, modules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        command: f'bilstm-crf {command} needs {module}: pip install "bilstm-crf-hf[{extra}]"'
        for command, (module, extra) in needed.items()
    }


def test_a_missing_module_of_no_extra_is_an_error_as_it_is(monkeypatch):
    def fail(name: str) -> None:
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere.part")

    monkeypatch.setattr(sys, "argv", ["bilstm-crf"])
    monkeypatch.setattr("bilstm_crf_hf.commands.__main__.import_module", fail)
    with pytest.raises(ModuleNotFoundError, match="elsewhere"):
        main(["ner"])


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_installs_its_modules(extra):
    setup = configparser.ConfigParser()
    setup.read(RECIPES.parent / "setup.cfg", encoding="utf-8")
    required = setup.get("options.extras_require", extra, raw=True)
    for module in EXTRAS[extra]:
        names = packages_distributions().get(module) or pytest.skip(f"{module} is not installed")
        assert any(re.search(rf"^{name.removesuffix('_model')}\b", required, re.MULTILINE) for name in names)


def test_launchers_are_short():
    launchers = list(RECIPES.glob("*.py"))
    assert len(launchers) >= len(COMMANDS)
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 20 for path in launchers)


def test_every_command_has_a_launcher_that_knows_the_folder_of_the_recipes(tmp_path, monkeypatch):
    launched = {}

    def record(argv: list[str], recipes: Path) -> None:
        launched[argv[0]] = argv[1:], recipes

    monkeypatch.setattr("bilstm_crf_hf.commands.__main__.main", record)
    monkeypatch.setattr(sys, "argv", ["launcher", "--seed", "7"])
    monkeypatch.chdir(tmp_path)
    for path in RECIPES.glob("*.py"):
        if path.stem != "onnx_inference":  # runs without the package
            runpy.run_path(str(path), run_name="__main__")
    assert launched == dict.fromkeys(COMMANDS, (["--seed", "7"], RECIPES))


@pytest.mark.parametrize("name", ["ner", "classify"])
def test_training_without_data_outside_of_a_clone_says_which_arguments_to_give(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bilstm-crf"])
    with pytest.raises(ValueError, match="no data: give --train_file and --validation_file, or --dataset_name"):
        main([name])
    assert not list(tmp_path.iterdir())
