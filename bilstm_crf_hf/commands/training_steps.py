"""Steps that commands share: the start and the end of a training, and a training in a process of its own."""

import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from transformers import set_seed

from ..evaluation.runs import COMPARISON_RUN, RESULTS
from ..hub.publishing import prepare, send
from ..training.arguments import DATA, configure_logging, parse_arguments
from ..training.trainer import TaggerTrainer
from ..utils.files import locked, write_folder_atomically, write_json
from . import launcher

logger = logging.getLogger(__name__)


@contextmanager
def start_training(
    types: Sequence[type], argv: Sequence[str], description: str, sample: Path | None = None
) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments of a command, those of the training last, after setting up logging and the seed.

    The arguments of this function are those of [`parse_arguments`]. Other processes are kept out of the output folder
    until the context ends, see [`locked`]; of the processes of a training, the first has the lock.
    """
    *settings, arguments = parse_arguments(types, argv, description, sample)
    check_output(arguments.output_dir, settings)
    with locked(Path(arguments.output_dir)) if arguments.process_index == 0 else nullcontext():
        configure_logging(arguments.should_log)
        if sample is not None and not any(getattr(part, name, None) for part in settings for name in DATA):
            logger.info("no data are named: the sample, with the arguments and the settings in %s that fit", sample)
        if Path(arguments.output_dir, RESULTS).is_file() and arguments.resume_from_checkpoint is None:
            logger.warning("%s holds a finished run: this one will replace its model", arguments.output_dir)
        set_seed(arguments.seed)
        yield *settings, arguments


def check_output(output_dir: str, settings: Sequence[Any]) -> None:
    """Raise ValueError if the output folder is that of a model which the training reads, and would replace."""
    for part in settings:
        for name in ("model_name_or_path", "embeddings_from", "teachers"):
            value = getattr(part, name, None)
            for model in [value] if isinstance(value, str) else value or []:
                if Path(model).resolve() == Path(output_dir).resolve():
                    raise ValueError(f"output_dir is {output_dir}, the folder of {name}: name another one")


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
        ValueError: if the folder contains a run with other settings, or something else, or the options name the seed or
            the folder.
        RuntimeError: if the training fails.
    """
    if taken := [option for option in options if re.match(r"--(seed|output[-_]dir)\b", option)]:
        raise ValueError(f"{taken[0]} is set for each run: name it before `--` (--seeds, --output_dir)")
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
