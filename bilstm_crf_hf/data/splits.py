"""The splits of a corpus: from files, from a data set on the Hub, or from the sample of a recipe."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset

from .rows import PathLike

SAMPLE_SEED = 42
"""The seed that draws samples and validation splits: the same rows whatever the seed of the training is."""


@dataclass
class SplitArguments:
    """The source of the splits."""

    dataset_name: str | None = field(
        default=None,
        metadata={"help": "Data set on the Hub, such as klue or e9t/nsmc. Files have priority over it."},
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of the data set, such as ner."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Revision of the data set, such as refs/convert/parquet."}
    )
    validation_split: str = field(
        default="validation", metadata={"help": "Split of the data set that is evaluated after each epoch."}
    )
    train_file: str | None = field(
        default=None,
        metadata={"help": "File of training data: Parquet, JSON, tsv and others (formats: recipes/README.md)."},
    )
    validation_file: str | None = field(
        default=None, metadata={"help": "File of validation data, in the same formats."}
    )
    text_column_name: str | None = field(default=None, metadata={"help": "Column of tokens or text."})
    label_column_name: str | None = field(default=None, metadata={"help": "Column of tags or classes."})


@dataclass
class SourceArguments(SplitArguments):
    """The source of the splits, their sizes, and the limit of their lengths."""

    test_file: str | None = field(
        default=None, metadata={"help": "File of test data, in the same formats; evaluated once, after training."}
    )
    validation_split_percentage: int | None = field(
        default=None,
        metadata={"help": "Percentage of the train split to use as validation split, drawn at random."},
    )
    max_seq_length: int | None = field(
        default=None,
        metadata={
            "help": "Maximum number of tokens. Longer sentences are split, longer texts truncated. Default: the "
            "tokenizer's limit."
        },
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Use a random sample of this many training rows."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Use a random sample of this many validation rows."}
    )

    def __post_init__(self) -> None:
        percentage = self.validation_split_percentage
        if percentage is not None and not 0 < percentage < 100:
            raise ValueError(f"validation_split_percentage must be between 0 and 100, got {percentage}")


def open_splits(
    dataset_name: str | None,
    dataset_config_name: str | None,
    data_files: Mapping[str, PathLike] | None,
    revision: str | None,
) -> dict[str, tuple[str, Path | Dataset]]:
    """Return the name in error messages and the data of each split, which are a file or a data set from the Hub.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if not exactly one of `dataset_name` and `data_files` is given, or a configuration with files.
    """
    if (dataset_name is None) == (not data_files):
        raise ValueError("give either the dataset_name of a data set or data_files, the file of each split")
    if not data_files:
        datasets = load_dataset(dataset_name, dataset_config_name, revision=revision)
        return {split: (f"{dataset_name} ({split})", dataset) for split, dataset in datasets.items()}
    if dataset_config_name is not None:
        raise ValueError("dataset_config_name goes with dataset_name, not with data_files")
    for path in data_files.values():
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    return {split: (str(path), Path(path)) for split, path in data_files.items()}


def read_splits(
    load: Callable[..., DatasetDict],
    arguments: SplitArguments,
    sample: Mapping[str, PathLike],
    needed: Set[str],
    **options: Any,
) -> DatasetDict:
    """Load the splits from the files in the arguments, else from the data set there, else from `sample`.

    Args:
        load: `ner.load_ner_datasets` or `classification.load_classification_datasets`.
        arguments: files or data set, and columns.
        sample: the file of each split if the arguments name neither files nor a data set.
        needed: splits that must exist.
        options: further arguments of `load`.

    Raises:
        ValueError: if a needed split does not exist, or if `load` raises it.
    """
    files = {split: getattr(arguments, f"{split}_file", None) for split in ("train", "validation", "test")}
    files = {split: path for split, path in files.items() if path}
    if not files and arguments.dataset_name is None:
        files = dict(sample)
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
    """Load the splits of a training with [`read_splits`], then divide and sample them as the arguments say.

    Raises:
        ValueError: if there is no train or no validation split, or if `load` raises it.
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
