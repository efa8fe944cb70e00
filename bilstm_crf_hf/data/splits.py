"""The splits of a corpus: from files, from a data set on the Hub, or from the sample of a recipe."""

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

from .rows import PathLike

SPLITS = ("train", "validation", "test")
"""The names of the splits that files can be named for."""

SAMPLE_SEED = 42
"""The seed that draws samples and validation splits: the same rows in all commands, for all seeds of the training."""


@dataclass
class SplitArguments:
    """The source of the splits."""

    dataset_name: str | None = field(default=None, metadata={"help": "Data set on the Hub, in place of files."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration, such as ner."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Revision, such as refs/convert/parquet."})
    validation_split: str = field(default="validation", metadata={"help": "Split to evaluate after each epoch."})
    train_file: str | None = field(default=None, metadata={"help": "Training data (formats: recipes/README.md)."})
    validation_file: str | None = field(default=None, metadata={"help": "File of validation data."})
    validation_split_percentage: int | None = field(
        default=None, metadata={"help": "Percentage of the train split to draw at random as validation split."}
    )
    test_split_percentage: int | None = field(
        default=None, metadata={"help": "Percentage of the train split to draw at random as test split."}
    )
    text_column_name: str | None = field(default=None, metadata={"help": "Column of tokens or text."})
    label_column_name: str | None = field(default=None, metadata={"help": "Column of tags or classes."})

    def __post_init__(self) -> None:
        for split in ("validation", "test"):
            percentage = getattr(self, f"{split}_split_percentage")
            if percentage is not None and not 0 < percentage < 100:
                raise ValueError(f"{split}_split_percentage must be between 0 and 100, got {percentage}")
        if (together := (self.validation_split_percentage or 0) + (self.test_split_percentage or 0)) >= 100:
            raise ValueError(f"{together} % of the train split would be held out: nothing is left to train on")


@dataclass
class SourceArguments(SplitArguments):
    """The source of the splits, their sizes, and the limit of their lengths."""

    test_file: str | None = field(default=None, metadata={"help": "File of test data, used once, after training."})
    max_seq_length: int | None = field(
        default=None, metadata={"help": "Limit in tokens (default: the tokenizer's); longer inputs are split or cut."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Number of random training rows to use."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Number of random validation rows to use."})


def open_splits(
    name: str | None, config_name: str | None, files: Mapping[str, PathLike] | None, revision: str | None
) -> dict[str, tuple[str, Path | Dataset]]:
    """Return the source of each split: its name in error messages, and its file or its data set from the Hub.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if not exactly one of a data set's name and files is given, or a configuration with files; if the
            name is a file, or a folder in which the files of the splits are not clear.
    """
    if (name is None) == (not files):
        raise ValueError("give either the dataset_name of a data set or data_files, the file of each split")
    if name is not None and Path(name, "dataset_dict.json").is_file():
        return {split: (f"{name} ({split})", dataset) for split, dataset in _from_disk(name).items()}
    if name is not None and Path(name).exists():
        files = _files_of_splits(Path(name))
    if not files:
        datasets = load_dataset(name, config_name, revision=revision)
        return {split: (f"{name} ({split})", dataset) for split, dataset in datasets.items()}
    if config_name is not None:
        raise ValueError("dataset_config_name goes with dataset_name, a data set on the Hub, not with files")
    for path in files.values():
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    return {split: (str(path), Path(path)) for split, path in files.items()}


def _from_disk(folder: str) -> DatasetDict:
    """Return the data set that `DatasetDict.save_to_disk` has saved in a folder; raise ValueError if it is damaged."""
    try:
        return load_from_disk(folder)
    except Exception as error:  # datasets and Arrow have types of their own
        problem = f"the data set cannot be read ({type(error).__name__}: {error})"
        raise ValueError(f"{folder}: {problem}: save it again with save_to_disk") from error


def _files_of_splits(folder: Path) -> dict[str, Path]:
    """Return the file or folder of each split in a folder, such as `train.jsonl`.

    `load_dataset` is only for the Hub: it would take brackets in the path for a pattern, and a text `NA` for none.
    """
    found = [path for path in sorted(folder.iterdir()) if path.stem in SPLITS] if folder.is_dir() else []
    files = {path.stem: path for path in found}
    if not files or len(files) < len(found):
        names = ", ".join(path.name for path in found) or "none"
        problem = f"expected a folder with one file train.*, and one validation.* or test.*, found {names}"
        raise ValueError(f"{folder}: {problem}: name the files in train_file and validation_file")
    return files


def read_splits(
    load: Callable[..., DatasetDict],
    arguments: SplitArguments,
    sample: Mapping[str, PathLike],
    needed: Set[str],
    **options: Any,
) -> DatasetDict:
    """Load the splits from the files or the data set in the arguments, else from the files in `sample`.

    With a `validation_split_percentage` or `test_split_percentage`, these splits are drawn from the train split, the
    validation split first, so that its rows do not depend on the other.

    Args:
        load: `ner.load_ner_datasets` or `classification.load_classification_datasets`, which takes `options`.

    Raises:
        ValueError: if a `needed` split does not exist, if an argument is not for the source, or if `load` raises it.
    """
    percentages = {split: getattr(arguments, f"{split}_split_percentage") for split in ("validation", "test")}
    percentages = {split: percentage for split, percentage in percentages.items() if percentage}
    if percentages:
        needed = needed - percentages.keys() | {"train"}
    files = {split: getattr(arguments, f"{split}_file", None) for split in SPLITS}
    files = {split: path for split, path in files.items() if path}
    if not files and arguments.dataset_name is None:
        files = dict(sample)
        if not files:
            raise ValueError("no data: give --train_file and --validation_file, or --dataset_name")
    columns = {"text_column": arguments.text_column_name, "label_column": arguments.label_column_name}
    hub = {name: getattr(arguments, name) for name in ("dataset_name", "dataset_config_name", "dataset_revision")}
    if given := [name for name, value in hub.items() if files and value is not None]:
        source = "files" if files != sample else "the sample"
        raise ValueError(f"{' and '.join(given)}: for a data set on the Hub, not for {source}: leave one of both out")
    if files and arguments.validation_split != SplitArguments.validation_split:
        raise ValueError("validation_split names a split of a data set on the Hub: name the file in validation_file")
    name, config_name, revision = hub.values()
    datasets = load(name, config_name, files, revision=revision, **columns, **options)
    if not files and arguments.validation_split in datasets:
        datasets["validation"] = datasets.pop(arguments.validation_split)
    if missing := sorted(needed - set(datasets)):
        remedy = " and ".join(f"{split}_file" for split in missing)
        if missing == ["validation"]:
            remedy += " or validation_split_percentage" if files else " or another validation_split"
        raise ValueError(f"there is no {' and no '.join(missing)} split, only {', '.join(datasets)}: give {remedy}")
    if "test" in percentages and "test" in datasets:
        raise ValueError("there is a test split: leave out test_split_percentage, or the file or data set that has it")
    sizes = {split: math.ceil(percentages[split] / 100 * len(datasets["train"])) for split in percentages}
    for split, size in sizes.items():
        parts = datasets["train"].train_test_split(size, seed=SAMPLE_SEED)
        datasets |= {"train": parts["train"], split: parts["test"]}
    return datasets


def load_splits(
    load: Callable[..., DatasetDict], arguments: SourceArguments, sample: Mapping[str, PathLike], **options: Any
) -> DatasetDict:
    """Load the splits of a training with [`read_splits`], then sample them as the arguments say."""
    datasets = read_splits(load, arguments, sample, {"train", "validation"}, **options)
    limits = {"train": arguments.max_train_samples, "validation": arguments.max_eval_samples}
    for split, limit in limits.items():
        if limit is not None and limit < len(datasets[split]):
            datasets[split] = datasets[split].shuffle(seed=SAMPLE_SEED).select(range(limit))
    return datasets
