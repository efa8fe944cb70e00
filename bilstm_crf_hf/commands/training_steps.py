"""First and last steps that the commands for training share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import set_seed

from ..hub.publishing import prepare, send
from ..training.arguments import configure_logging, parse_arguments
from ..training.trainer import TaggerTrainer


def start_training(types: Sequence[type], argv: Sequence[str], description: str) -> tuple[Any, ...]:
    """Return the arguments of a command, those of the training last, after setting up logging and the seed.

    The arguments of this function are those of [`parse_arguments`].
    """
    *settings, arguments = parse_arguments(types, argv, description)
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
