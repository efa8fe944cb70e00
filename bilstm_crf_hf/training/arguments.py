"""Arguments that the training commands share, and their reading from YAML files and command lines."""

import json
import logging
from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch
from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import HfArg

from ..data.rows import READERS
from ..evaluation.tasks import TASKS
from .checks import REFUSED, check_bounds
from .config_files import argument_of, place, read_entries

logger = logging.getLogger(__name__)

DATA = {"dataset_name", "train_file", "validation_file", "test_file"}
"""Arguments that name data of one's own, in place of the sample."""

HUB = {"dataset_name", "dataset_config_name", "dataset_revision", "validation_split"}
"""Arguments for a data set on the Hub. On a command line, they and names of files win over each other in a file."""

NEW_HEAD = "new"
"""Value of `--head` for the usual head of a pretrained model, but with the labels of the data."""

PARTS = {"tokenizer_name", "embeddings_from", "embeddings_file"}
"""Arguments that name parts of a new BiLSTM."""

TEACHERS = {"teachers", "unlabeled_file", "variants"}
"""Arguments in a file that `--soft_labels_file` on a command line takes the place of."""

BILSTM_SETTINGS = {"config_overrides", "embedding_learning_rate", "learning_rate", "min_frequency"}
"""Arguments in the configurations of the samples that are for a new BiLSTM, and wrong for another model."""

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
    other_vectors: int = HfArg(
        default=200_000,
        help='The number of vectors in embeddings_file that unit "words" keeps of words not in training.',
    )
    read_morphemes: bool = HfArg(default=False, help="Let a BiLSTM-CRF also read the morphemes that Kiwi finds.")
    freeze_embeddings: bool = HfArg(default=False, help="Do not train the embeddings that were copied into the model.")
    head: str | None = HfArg(
        default=None,
        help=f"A new head for the encoder in model_name_or_path: {HEADS}; {NEW_HEAD}, the usual one in "
        "place of one for other labels. The head `characters` reads the pretrained BiLSTM in tokenizer_name. Default: "
        "the model's own head, or the usual one if it has none.",
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
        if self.config_overrides is not None:
            self.config_overrides = parse_overrides(self.config_overrides)


@dataclass
class TaggerArguments(ModelArguments):
    """Arguments that name the tagger, and what it keeps in the training."""

    distill_from_self: float = HfArg(
        default=0.0,
        help="The weight, from 0 to 1, of what the tagger in model_name_or_path itself says of the entity types of "
        "which the training data have no entity, against their label O. With 1 it holds on to them, with 0 it forgets.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distill_from_self and (self.head or not self.model_name_or_path):
            raise ValueError(
                "distill_from_self is for a trained tagger with its own head: name it with model_name_or_path and "
                "leave out head, or leave out distill_from_self"
            )


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
    logging_nan_inf_filter: bool = False  # it would hide a loss that is not finite, at which training stops
    seed: int = 42
    do_train: bool = True
    hub_strategy: str = "end"
    learning_rate_decay: float | None = HfArg(default=None, help="The factor of all learning rates after each epoch.")
    head_learning_rate: float | None = HfArg(default=None, help="The rate outside the encoder. Default: learning_rate.")
    crf_learning_rate: float | None = HfArg(default=None, help="Default: head_learning_rate.")
    embedding_learning_rate: float | None = HfArg(default=None, help="Default: learning_rate, × 5 for large tables.")
    ema_decay: float | None = HfArg(default=None, help="The decay of an average of the weights, such as 0.998.")
    cuda_graphs: bool = HfArg(default=True, help="Run the steps of a BiLSTM as CUDA graphs on a single GPU.")

    def __post_init__(self) -> None:
        if self.accelerator_config is None and self.dataloader_pin_memory:  # type: ignore[has-type]  # of the base
            self.accelerator_config = {"non_blocking": True}  # else the host waits for each copy of a batch
        self._check_values()
        if self.metric_for_best_model is not None:
            self.metric_for_best_model = self.metric_for_best_model.removeprefix("eval_")
        super().__post_init__()
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be between 0 and 1, got {self.ema_decay}")
        for name, (refused, reason) in REFUSED.items():
            if refused(self):
                raise ValueError(f"{name} is {getattr(self, name)}, but {reason}")
        if self.push_to_hub and self.hub_strategy != "end":
            raise ValueError(
                f"hub_strategy is {self.hub_strategy}, but only `end` is possible: all files of a finished run are "
                "checked before they are published"
            )
        if self.hub_token is not None:
            raise ValueError("hub_token would be saved in training_args.bin: use `hf auth login`, or set HF_TOKEN")

    def _check_values(self) -> None:
        if not self.output_dir or Path(self.output_dir).is_file():
            raise ValueError(f"output_dir is {self.output_dir!r}: it must be a folder, or a name for a new one")
        check_bounds(self)


class _HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Formatter that shows the defaults of arguments and keeps the line breaks of the description."""


def parse_arguments(
    types: Sequence[type], argv: Sequence[str], description: str | None = None, sample: Path | None = None
) -> tuple[Any, ...]:
    """Parse `[config.yaml] [--name value ...]` into argument dataclasses. The command line wins over the file.

    Args:
        types: the dataclasses, of which one instance each is returned.
        argv: the command line without the name of the program.
        description: text that `--help` shows above the arguments.
        sample: configuration of the sample data, which both win over. It is left out if one of them names data. Its
            `BILSTM_SETTINGS` are left out if one of them names a model, and its model if one of them names `PARTS`.

    Raises:
        FileNotFoundError: if the configuration file does not exist.
        ValueError: if there is no argument of a given name, if a value is out of bounds, or if a file is not a mapping,
            has a name twice, or a value that its argument cannot have.
        SystemExit: if argparse refuses the value of an argument on the command line, and after `--help`.
    """
    parser = HfArgumentParser(
        types,
        usage="%(prog)s [config.yaml] [--argument value ...]",
        description=description,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    argv = list(argv)
    path = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    options = [token.partition("=")[0] for token in argv]
    given = [
        parser._option_string_actions[option].dest for option in options if option in parser._option_string_actions
    ]
    for name in sorted({name for name in given if given.count(name) > 1}):
        logger.warning("--%s is given more than once: the last value counts", name)
    values = {} if path is None else _read_values(path, parser, types)
    files = DATA - HUB
    replaced = (HUB if files & set(given) else set()) | (files if "dataset_name" in given else set())
    replaced |= TEACHERS if "soft_labels_file" in given else set()
    values = {name: value for name, value in values.items() if name not in replaced}
    named = {*given, *(name for name, value in values.items() if value is not None)}
    if sample is not None and "help" not in named and not DATA & named:
        base = _read_values(sample, parser, types)
        left_out = BILSTM_SETTINGS | {"head"} if "model_name_or_path" in named else frozenset()
        if PARTS & set(named):
            left_out |= {"model_name_or_path", "head"}
        base = {name: value for name, value in base.items() if name not in left_out}
        values = base | values | joined_overrides(base, values)
    inherited = {field.name: field.metadata.get("help") for field in fields(TrainingArguments)}
    for action in parser._actions:
        action.required = action.required and action.dest not in values
        action.help = action.help or inherited.get(action.dest) or "Default: %(default)s."
    parser.set_defaults(**values)
    namespace, rest = parser.parse_known_args(argv)
    if rest:
        raise ValueError(f"there is no argument {rest[0]}; --help lists them")
    for name in sorted(DATA & vars(namespace).keys()):
        if getattr(namespace, name) == "":  # of an unset variable of the shell; the sample would take its place
            raise ValueError(f"{name} is empty: name the data, or leave it out")
    vars(namespace).update(joined_overrides(values, vars(namespace)))
    parts = []
    for type_ in types:
        names = [field.name for field in fields(type_) if field.init]
        parts.append(type_(**{name: getattr(namespace, name) for name in names}))
        check_bounds(parts[-1])
    return tuple(parts)


def joined_overrides(*levels: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return `config_overrides` joined field by field, if all levels have some; later levels win."""
    parts = [part for level in levels if (part := level.get("config_overrides")) is not None]
    if len(parts) < len(levels):
        return {}
    return {"config_overrides": {name: value for part in parts for name, value in parse_overrides(part).items()}}


def _read_values(path: Path, parser: HfArgumentParser, types: Sequence[type]) -> dict[str, Any]:
    """Return the values of arguments in a configuration file, with the types of the arguments."""
    hints = {name: hint for type_ in types for name, hint in get_type_hints(type_).items()}
    actions = {action.dest: action for action in reversed(parser._actions)}  # `x` wins over `no_x`, which is later
    values = {}
    for name, node in read_entries(path).items():
        if name not in hints or name not in actions:
            raise ValueError(f"{place(node, path)}: there is no argument {name!r}; --help lists them")
        try:
            values[name] = _converted(argument_of(node, path), hints[name], actions[name], parser)
        except ArgumentError as error:
            raise ValueError(f"{place(node, path)}: {name}: {error.message}") from None
    return values


def _converted(value: Any, hint: Any, action: Action, parser: HfArgumentParser) -> Any:
    """Return the value of [`argument_of`] as argparse converts it on a command line, where lists cannot be empty."""
    kinds = {get_origin(part) or part for part in (get_args(hint) or [hint])} | {get_origin(hint)}
    if value is None and type(None) not in kinds:
        raise ArgumentError(None, "expected a value: give one, or delete the line for the default")
    if value is None or (isinstance(value, dict) and dict in kinds):
        return value
    is_list = list in kinds and (isinstance(value, list) or action.nargs == "+")
    items = value if isinstance(value, list) else [value]
    if not is_list and len(items) != 1 or any(isinstance(item, dict) for item in items):
        raise ArgumentError(None, f"expected {'single values' if is_list else 'one value'}, got {value!r}")
    if bool in kinds:
        items = [{"on": "true", "off": "false"}.get(item.lower(), item) for item in items]
    items = [parser._get_value(action, item) for item in items]
    for item in items:
        parser._check_value(action, item)
    return items if is_list else items[0]


def parse_overrides(value: dict | str) -> dict[str, Any]:
    """Return the fields in `config_overrides`, a mapping or one in JSON; raise ValueError if it is neither."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError(f"config_overrides has a field twice: {value}")
        return dict(pairs)

    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=unique)
        except json.JSONDecodeError as error:
            raise ValueError(f"config_overrides is not JSON ({error}): {value}") from None
    if not isinstance(value, dict):
        raise ValueError(f'config_overrides: expected fields and their values, such as {{"hidden_size": 512}}: {value}')
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError(f"config_overrides has a number that is not finite: {value}") from None
    return value


def configure_logging(is_main_process: bool = True) -> None:
    """Log plain lines, from the main process only, and leave out the lines about single HTTP requests."""
    logging.basicConfig(level=logging.INFO if is_main_process else logging.WARNING, format="%(message)s")
    for client in ("httpx", "httpx2"):  # of huggingface_hub 1 and 2, which log each request
        logging.getLogger(client).setLevel(logging.WARNING)
