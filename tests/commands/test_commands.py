"""The commands by their names, and the launchers in a clone."""

import runpy
import sys
from pathlib import Path

import pytest

from bilstm_crf_hf.commands.__main__ import COMMANDS, main

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
