"""Where the sentences that a recipe trains on come from: files, a data set on the Hub, or the recipe's own sample."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from datasets import DatasetDict

from .ner import PathLike

SAMPLE_SEED = 42
"""Of max_train_samples and max_eval_samples: the same rows whatever the seed of the training is."""


@dataclass
class SplitArguments:
    """Which sentences are read."""

    dataset_name: str | None = field(
        default=None,
        metadata={"help": "Data set on the Hub, such as klue or e9t/nsmc. Files are read instead, as copies of it."},
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration, such as ner."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Its revision, such as refs/convert/parquet."})
    validation_split: str = field(
        default="validation", metadata={"help": "Its split that is evaluated after each epoch."}
    )
    train_file: str | None = field(
        default=None, metadata={"help": "Parquet, json, tsv and others: recipes/README.md has the formats."}
    )
    validation_file: str | None = field(default=None, metadata={"help": "Likewise."})
    text_column_name: str | None = field(default=None, metadata={"help": "Column of tokens or text."})
    label_column_name: str | None = field(default=None, metadata={"help": "Column of tags, or of the class."})


@dataclass
class SourceArguments(SplitArguments):
    """Which sentences are trained on, and how long they may be."""

    test_file: str | None = field(default=None, metadata={"help": "As train_file; evaluated once, at the end."})
    validation_split_percentage: int | None = field(
        default=None,
        metadata={
            "help": "Percentage of the train split that is taken out, at random, in place of a validation split."
        },
    )
    max_seq_length: int | None = field(
        default=None,
        metadata={"help": "Limit in tokens; longer sentences are split, texts cut off. Default: the tokenizer's."},
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Use a random sample of as many rows."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Likewise, of the validation split."})

    def __post_init__(self) -> None:
        percentage = self.validation_split_percentage
        if percentage is not None and not 0 < percentage < 100:
            raise ValueError(f"validation_split_percentage must be between 0 and 100, got {percentage}")


def read_splits(
    load: Callable[..., DatasetDict],
    arguments: SplitArguments,
    sample: Mapping[str, PathLike],
    needed: Set[str],
    **options: Any,
) -> DatasetDict:
    """The splits from files, which win over a data set's name; from `sample`, if there is neither.

    Args:
        load: `corpora.load_ner_datasets` or `classification_corpora.load_classification_datasets`.
        sample: files by split.
        needed: splits that there have to be.
        options: more of what `load` takes.

    Raises:
        ValueError: a split that is needed is not there; whatever `load` raises.
    """
    files = {split: getattr(arguments, f"{split}_file", None) for split in ("train", "validation", "test")}
    files = {split: path for split, path in files.items() if path}
    if not files and arguments.dataset_name is None:
        files = dict(sample)
        if not files:
            raise ValueError("no data: give --train_file and --validation_file, or --dataset_name")
    hub = {} if files else {"revision": arguments.dataset_revision}
    datasets = load(
        None if files else arguments.dataset_name,
        None if files else arguments.dataset_config_name,
        files,
        text_column=arguments.text_column_name,
        label_column=arguments.label_column_name,
        **hub,
        **options,
    )
    if not files and arguments.validation_split in datasets:
        datasets["validation"] = datasets.pop(arguments.validation_split)
    if missing := needed - set(datasets):
        raise ValueError(
            f"there is no {' and no '.join(sorted(missing))} split, only {', '.join(datasets)}: name a file for it, or "
            "another validation_split"
        )
    return datasets


def load_splits(
    load: Callable[..., DatasetDict], arguments: SourceArguments, sample: Mapping[str, PathLike], **options: Any
) -> DatasetDict:
    """What a training needs: the splits of [`read_splits`], divided and sampled where the arguments say so.

    Raises:
        ValueError: there is no train or no validation split; whatever `load` raises.
    """
    percentage = arguments.validation_split_percentage
    datasets = read_splits(load, arguments, sample, {"train"} if percentage else {"train", "validation"}, **options)
    if percentage:
        parts = datasets["train"].train_test_split(percentage / 100, seed=SAMPLE_SEED)
        datasets |= {"train": parts["train"], "validation": parts["test"]}
    limits = {"train": arguments.max_train_samples, "validation": arguments.max_eval_samples}
    for split, limit in limits.items():
        if limit is not None and limit < len(datasets[split]):
            datasets[split] = datasets[split].shuffle(seed=SAMPLE_SEED).select(range(limit))
    return datasets
