"""Arguments that the training commands share, and their reading from YAML files and command lines."""

import json
import logging
from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from ..evaluation.tasks import TASKS

logger = logging.getLogger(__name__)

HEADS = "; ".join(f"{name}, {head.description}" for task in TASKS.values() for name, head in task.heads.items())
"""Description of the heads that can be put on a pretrained encoder, for the help text of `--head`."""


@dataclass
class ModelArguments:
    """Arguments that name the model and its tokenizer."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "The model to fine-tune, on the Hub or in a folder. Without it, a new BiLSTM is trained."},
    )
    tokenizer_name: str | None = field(
        default=None,
        metadata={
            "help": "The tokenizer, on the Hub or in a folder. Without it, the tokenizer of the model is used; a new "
            "BiLSTM reads characters."
        },
    )
    config_overrides: dict | str | None = field(
        default=None,
        metadata={
            "help": "Fields of the model's configuration: a mapping in a YAML file, a JSON object on the command line."
        },
    )
    embeddings_from: str | None = field(
        default=None,
        metadata={
            "help": "An encoder whose input embeddings are copied into a new BiLSTM. Its tokenizer is used unless "
            "tokenizer_name names another one."
        },
    )
    embeddings_file: str | None = field(
        default=None,
        metadata={"help": "A file of word2vec, GloVe or fastText vectors that are copied into a new BiLSTM."},
    )
    read_morphemes: bool = field(
        default=False,
        metadata={"help": "Let a BiLSTM-CRF read the morphemes that Kiwi finds as well (pip install kiwipiepy)."},
    )
    freeze_embeddings: bool = field(
        default=False, metadata={"help": "Do not train the embeddings that were copied into the model."}
    )
    head: str | None = field(
        default=None,
        metadata={
            "help": f"A new head for the encoder in model_name_or_path: {HEADS}. The head `characters` reads the "
            "pretrained BiLSTM in tokenizer_name. Without this argument, the linear head of transformers is used."
        },
    )
    min_frequency: int = field(
        default=2,
        metadata={"help": "A new tokenizer has the characters that occur at least this often in the training data."},
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run the Python code that a model on the Hub or in a folder contains."}
    )

    def __post_init__(self) -> None:
        if self.embeddings_from and self.embeddings_file:
            raise ValueError("give embeddings_from or embeddings_file, not both")
        if self.model_name_or_path and (self.embeddings_from or self.embeddings_file):
            raise ValueError("embeddings are copied into a new BiLSTM-CRF: leave them out with model_name_or_path")
        if self.freeze_embeddings and not (self.embeddings_from or self.embeddings_file):
            raise ValueError("freeze_embeddings goes with embeddings_from or embeddings_file: random ones must learn")
        if self.head and not self.model_name_or_path:
            raise ValueError("head needs an encoder: name it with model_name_or_path, or leave out head")
        if isinstance(self.config_overrides, str):
            try:
                self.config_overrides = json.loads(self.config_overrides)
            except json.JSONDecodeError as error:
                raise ValueError(f"config_overrides is not JSON ({error}): {self.config_overrides}") from None


@dataclass
class CardArguments:
    """Arguments for the parts of a model card that cannot be derived from a run."""

    language: str = field(default="ko", metadata={"help": "The ISO 639 code of the language of the texts."})
    license: str | None = field(
        default=None, metadata={"help": "The licence of the model, by its name on the Hub, such as cc-by-sa-4.0."}
    )
    dataset_description: str | None = field(
        default=None, metadata={"help": "A description of the training data and of their licence, in Markdown."}
    )
    base_model: str | None = field(
        default=None,
        metadata={"help": "The name on the Hub of the encoder, if model_name_or_path is a copy of it in a folder."},
    )


@dataclass
class TaggerTrainingArguments(TrainingArguments):
    """`TrainingArguments` with defaults for a BiLSTM-CRF, and with a learning rate for each part of the model.

    Args:
        learning_rate: default 2e-3 for a BiLSTM, 5e-5 for an encoder.
        learning_rate_decay: factor of all learning rates after each epoch, in place of `lr_scheduler_type` (the
            schedule of PyTorch's ExponentialLR).
        head_learning_rate: learning rate of all parameters outside of the encoder; default `learning_rate`. A new head
            on a small encoder needs ten to thirty times the learning rate of the encoder.
        crf_learning_rate: learning rate of the CRF; default `head_learning_rate`.
        embedding_learning_rate: learning rate of the embeddings; default `learning_rate`, or five times as much for
            tables of which only the rows in a batch are updated (see `optimization.RowAdamW`). The momentum of dense
            AdamW moves such a row for 1 / (1 - 0.9) = 10 steps in all. On KLUE-NER the factor 5 scores as well as 10,
            and better on a few hundred sentences.
        ema_decay: decay of an exponential moving average of the weights in each step. The average is evaluated, saved
            and kept. Without it, weights are not averaged.
        cuda_graphs: whether the steps of a BiLSTM run as CUDA graphs on a single GPU, see `graphs.GraphedSteps`.
            Batches are then padded to a multiple of 8 tokens. Runs in float16 never use graphs.
    """

    output_dir: str = "outputs/ner"
    learning_rate: float | None = field(
        default=None, metadata={"help": "The learning rate. Default: 2e-3 for a BiLSTM, 5e-5 for an encoder."}
    )
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 64
    num_train_epochs: float = 6
    weight_decay: float = 0.01
    max_grad_norm: float = 5.0
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    logging_strategy: str = "epoch"
    save_total_limit: int | None = 1
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "f1"
    train_sampling_strategy: str = "group_by_length"
    dataloader_pin_memory: bool = torch.accelerator.is_available()
    logging_nan_inf_filter: bool = not torch.accelerator.is_available()  # it waits for the device in every step
    seed: int = 42
    hub_strategy: str = "end"
    learning_rate_decay: float | None = field(
        default=None,
        metadata={"help": "The factor of the learning rate after each epoch, in place of lr_scheduler_type."},
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "The learning rate of the head on an encoder. Default: learning_rate."}
    )
    crf_learning_rate: float | None = field(
        default=None, metadata={"help": "The learning rate of the CRF. Default: head_learning_rate."}
    )
    embedding_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "The learning rate of the embeddings. Default: learning_rate, and five times as much for large "
            "tables of a BiLSTM."
        },
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "The decay of a moving average of the weights, such as 0.998. The average is then evaluated, saved "
            "and kept."
        },
    )
    cuda_graphs: bool = field(
        default=True, metadata={"help": "Whether the steps of a BiLSTM run as CUDA graphs on a single GPU."}
    )

    def __post_init__(self) -> None:
        if self.accelerator_config is None and self.dataloader_pin_memory:
            self.accelerator_config = {"non_blocking": True}  # else the host waits for each copy of a batch
        super().__post_init__()
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be between 0 and 1, got {self.ema_decay}")
        if self.push_to_hub and self.hub_strategy != "end":
            raise ValueError(
                f"hub_strategy is {self.hub_strategy}, but only `end` is possible: all files of a finished run are "
                "checked before they are published"
            )
        if self.hub_token is not None:
            raise ValueError(
                "hub_token would be saved in training_args.bin of every checkpoint: use `hf auth login`, or set "
                "HF_TOKEN"
            )


class _HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Formatter that shows the defaults of arguments and keeps the line breaks of the description."""


def parse_arguments(types: Sequence[type], argv: Sequence[str], description: str | None = None) -> tuple[Any, ...]:
    """Parse `[config.yaml] [--name value ...]` into argument dataclasses. The command line wins over the file.

    Args:
        types: the dataclasses.
        argv: the command line without the name of the program.
        description: text that `--help` shows above the arguments.

    Returns:
        One instance of each dataclass.

    Raises:
        FileNotFoundError: if the configuration file does not exist.
        ValueError: if a key of the file is not the name of an argument, or if the file is not a mapping.
        SystemExit: if argparse refuses an argument, and after `--help`.
    """
    parser = HfArgumentParser(
        types,
        usage="%(prog)s [config.yaml] [--argument value ...]",
        description=description,
        formatter_class=_HelpFormatter,
    )
    defaults: list[str] = []
    argv = list(argv)
    if argv and not argv[0].startswith("-"):
        path = Path(argv.pop(0))
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such configuration file")
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(values, dict):
            raise ValueError(f"{path}: expected lines `name: value`")
        known = {action.dest for action in parser._actions}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"{path}: there is no argument {name!r}; --help lists them")
            defaults += _format_option(name, value)
    return parser.parse_args_into_dataclasses([*defaults, *argv])


def _format_option(name: str, value: Any) -> list[str]:
    """Return a YAML value as on a command line, so that argparse converts it (1e-3 is a string in YAML)."""
    if value is None:
        return []
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]


def configure_logging(is_main_process: bool = True) -> None:
    """Log plain lines, from the main process only, and leave out the lines about single HTTP requests."""
    logging.basicConfig(level=logging.INFO if is_main_process else logging.WARNING, format="%(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """Return the folder of the checkpoint that training starts from, None for a training from the beginning.

    With `--resume_from_checkpoint true` it is the newest complete checkpoint in `output_dir`. `Trainer` writes
    `trainer_state.json` last, so a checkpoint without a complete one was interrupted and is skipped with a warning.
    """
    wanted = arguments.resume_from_checkpoint
    if wanted is None or str(wanted).lower() not in ("true", "false"):
        return wanted
    if str(wanted).lower() == "false":
        return None
    folders = Path(arguments.output_dir).glob("checkpoint-*")
    for folder in sorted(folders, key=lambda folder: int(folder.name.split("-")[1]), reverse=True):
        state = folder / "trainer_state.json"
        if state.is_file() and state.read_text(encoding="utf-8").rstrip().endswith("}"):
            return str(folder)
        logger.warning("%s is incomplete because saving it was interrupted: an earlier checkpoint is used", folder)
    return None
