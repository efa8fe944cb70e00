"""Steps that commands share: the start and the end of a training, and a training in a process of its own."""

import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import set_seed

from ..evaluation.runs import COMPARISON_RUN, RESULTS
from ..hub.publishing import prepare, send
from ..training.arguments import configure_logging, parse_arguments
from ..training.trainer import TaggerTrainer
from ..utils.files import locked, write_folder_atomically, write_json
from . import launcher


def start_training(types: Sequence[type], argv: Sequence[str], description: str) -> tuple[Any, ...]:
    """Return the arguments of a command, those of the training last, after setting up logging and the seed.

    The arguments of this function are those of [`parse_arguments`]. Other processes are kept out of the output folder
    as long as the arguments of the training exist, at most until the process ends, see [`locked`].
    """
    *settings, arguments = parse_arguments(types, argv, description)
    if arguments.process_index == 0:
        lock = ExitStack()
        lock.enter_context(locked(Path(arguments.output_dir)))
        weakref.finalize(arguments, lock.close)
    configure_logging(arguments.should_log)
    set_seed(arguments.seed)
    return *settings, arguments


def publish_if_asked(trainer: TaggerTrainer) -> None:
    """Check and publish a finished run if `--push_to_hub` was given, and print the address of the commit.

    The files get the tag `hub_revision`, or `v1`, in the repository that `Trainer` created at the start.
    """
    arguments = trainer.args
    if arguments.push_to_hub and trainer.is_world_process_zero():
        folder, revision = Path(arguments.output_dir), arguments.hub_revision or "v1"
        with prepare(folder, trainer.hub_model_id, revision, arguments.hub_private_repo) as publication:
            print("published:", send(publication))


def train(folder: Path, config: Path, recipe: str, seed: int, options: list[str], recipes: Path | None = None) -> None:
    """Train a system, unless its folder contains the finished run already.

    An interrupted run starts again from the beginning, since the times of a resumed run are not comparable.

    Args:
        folder: the run folder.
        config: YAML file of the system.
        recipe, seed, options: recipe that trains the system, its random seed and its further arguments.
        recipes: folder of the launchers in a clone.

    Raises:
        BlockingIOError: if a process of an earlier comparison still trains there.
        ValueError: if the folder contains a run with other settings, or something else.
        RuntimeError: if the training fails.
    """
    settings = {"recipe": recipe, "config": config.read_text(encoding="utf-8"), "options": options, "seed": seed}
    started = folder / COMPARISON_RUN
    if started.is_file() and json.loads(started.read_text(encoding="utf-8")) != settings:
        raise ValueError(
            f"{folder} was trained with other settings (see {started}): delete it, or name another --output_dir"
        )
    if (folder / RESULTS).is_file():
        print(f"{folder}: finished already")
        return
    if folder.exists():
        if not started.is_file():
            raise ValueError(f"{folder} is not a run of this comparison: move it away")
        with locked(folder):
            shutil.rmtree(folder)
    with write_folder_atomically(folder) as unfinished:  # so that the folder has its settings from the start
        write_json(unfinished / COMPARISON_RUN, settings)
    command = [sys.executable, *launcher(recipe, recipes), str(config), *options]
    command += ["--seed", str(seed), "--output_dir", str(folder)]
    print(" ".join(command), flush=True)
    status = subprocess.run(command, check=False).returncode
    if status or not (folder / RESULTS).is_file():
        raise RuntimeError(f"training {config} with seed {seed} failed (exit status {status}): see its messages above")
