"""Arguments that the training commands share, and their reading from YAML files and command lines."""

import json
import logging
from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import HfArg

from ..data.rows import READERS
from ..evaluation.tasks import TAGGING, TASKS

logger = logging.getLogger(__name__)

HEADS = "; ".join(f"{name}, {head.description}" for task in TASKS.values() for name, head in task.heads.items())
"""Description of the heads that can be put on a pretrained encoder, for the help text of `--head`."""

FILE_TYPES = " or ".join(", ".join(READERS).rsplit(", ", 1))
"""File types of texts, for help texts."""

TEXTS = f"Texts: {FILE_TYPES}, or FILE:COLUMN if the column is not `text`."
"""Help text of arguments that name files of raw texts."""


@dataclass
class ModelArguments:
    """Arguments that name the model and its tokenizer."""

    model_name_or_path: str | None = HfArg(default=None, help="The model to fine-tune. Default: a new BiLSTM.")
    tokenizer_name: str | None = HfArg(default=None, help="Default: that of the model; characters for a new BiLSTM.")
    config_overrides: dict | str | None = HfArg(default=None, help="Fields of the configuration (YAML or JSON).")
    embeddings_from: str | None = HfArg(
        default=None, help="An encoder whose input embeddings, and tokenizer by default, a new BiLSTM takes over."
    )
    embeddings_file: str | None = HfArg(default=None, help="Vectors for a new BiLSTM: word2vec, GloVe or fastText.")
    read_morphemes: bool = HfArg(default=False, help="Let a BiLSTM-CRF also read the morphemes that Kiwi finds.")
    freeze_embeddings: bool = HfArg(default=False, help="Do not train the embeddings that were copied into the model.")
    head: str | None = HfArg(
        default=None,
        help=f"A new head for the encoder in model_name_or_path: {HEADS}. The head `characters` reads the pretrained "
        "BiLSTM in tokenizer_name. Default: the linear head of transformers.",
    )
    min_frequency: int = HfArg(default=2, help="The least number of occurrences of a character in a new tokenizer.")
    trust_remote_code: bool = HfArg(default=False, help="Run the Python code that a model contains.")

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

    language: str = HfArg(default="ko", help="The ISO 639 code of the language of the texts.")
    license: str | None = HfArg(default=None, help="The licence of the model on the Hub, such as cc-by-sa-4.0.")
    dataset_description: str | None = HfArg(default=None, help="The training data and their licence, in Markdown.")
    base_model: str | None = HfArg(default=None, help="The encoder on the Hub, if model_name_or_path is a folder.")


@dataclass
class TaggerTrainingArguments(TrainingArguments):
    """`TrainingArguments` with defaults for a BiLSTM-CRF, and with a learning rate for each part of the model.

    `learning_rate_decay` is the schedule of PyTorch's ExponentialLR. A new head on a small encoder needs ten to thirty
    times the learning rate of the encoder. Large embedding tables of a BiLSTM have five times the learning rate, except
    in float16 (see `optimization.RowAdamW`), since the momentum of dense AdamW moves a row for 1 / (1 - 0.9) = 10 steps
    in all; on KLUE-NER the factor 5 scores as well as 10, and better on a few hundred sentences. With `cuda_graphs`
    (see `cuda_graphs.GraphedSteps`), batches are padded to a multiple of 8 tokens; runs in float16 never use graphs.
    """

    output_dir: str = "outputs/ner"
    learning_rate: float | None = HfArg(default=None, help="Default: 2e-3 for a BiLSTM, 5e-5 for an encoder.")
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
    learning_rate_decay: float | None = HfArg(default=None, help="The factor of all learning rates after each epoch.")
    head_learning_rate: float | None = HfArg(default=None, help="The rate outside the encoder. Default: learning_rate.")
    crf_learning_rate: float | None = HfArg(default=None, help="Default: head_learning_rate.")
    embedding_learning_rate: float | None = HfArg(default=None, help="Default: learning_rate, × 5 for large tables.")
    ema_decay: float | None = HfArg(default=None, help="The decay of an average of the weights, such as 0.998.")
    cuda_graphs: bool = HfArg(default=True, help="Run the steps of a BiLSTM as CUDA graphs on a single GPU.")
    metrics = tuple(TAGGING.columns)  # possible values of metric_for_best_model

    def __post_init__(self) -> None:
        if self.accelerator_config is None and self.dataloader_pin_memory:  # type: ignore[has-type]  # of the base
            self.accelerator_config = {"non_blocking": True}  # else the host waits for each copy of a batch
        super().__post_init__()
        if self.metric_for_best_model not in self.metrics:
            raise ValueError(f"metric_for_best_model is {self.metric_for_best_model}: set {' or '.join(self.metrics)}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be between 0 and 1, got {self.ema_decay}")
        if self.push_to_hub and self.hub_strategy != "end":
            raise ValueError(
                f"hub_strategy is {self.hub_strategy}, but only `end` is possible: all files of a finished run are "
                "checked before they are published"
            )
        if self.hub_token is not None:
            raise ValueError("hub_token would be saved in training_args.bin: use `hf auth login`, or set HF_TOKEN")


class _HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Formatter that shows the defaults of arguments and keeps the line breaks of the description."""


def parse_arguments(types: Sequence[type], argv: Sequence[str], description: str | None = None) -> tuple[Any, ...]:
    """Parse `[config.yaml] [--name value ...]` into argument dataclasses. The command line wins over the file.

    Args:
        types: the dataclasses, of which one instance each is returned.
        argv: the command line without the name of the program.
        description: text that `--help` shows above the arguments.

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
    for client in ("httpx", "httpx2"):  # of huggingface_hub 1 and 2, which log each request
        logging.getLogger(client).setLevel(logging.WARNING)


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """Return the folder of the checkpoint that training starts from, None for a training from the beginning.

    With `--resume_from_checkpoint true` it is the newest complete checkpoint in `output_dir`. `Trainer` writes
    `trainer_state.json` last, so a checkpoint without a complete one was interrupted and is skipped with a warning.
    """
    wanted = arguments.resume_from_checkpoint
    if wanted is None or str(wanted).lower() == "false":
        return None
    if str(wanted).lower() != "true":
        return wanted
    folders = Path(arguments.output_dir).glob("checkpoint-*")
    for folder in sorted(folders, key=lambda folder: int(folder.name.split("-")[1]), reverse=True):
        state = folder / "trainer_state.json"
        if state.is_file() and state.read_text(encoding="utf-8").rstrip().endswith("}"):
            return str(folder)
        logger.warning("%s is incomplete because saving it was interrupted: an earlier checkpoint is used", folder)
    return None
