"""Arguments that name teachers and texts, and the file of their soft labels; both kinds of distillation use them."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from transformers import TrainingArguments

from ..data.raw_text import read_all
from ..evaluation.runs import SOFT_LABELS
from ..utils.files import write_atomically


@dataclass
class TeacherArguments:
    """Arguments that say which models label which texts."""

    teachers: list[str] | None = field(
        default=None, metadata={"help": "Models on the Hub or in folders, whose probabilities are averaged."}
    )
    unlabeled_file: list[str] | None = field(
        default=None,
        metadata={"help": "Files of texts: txt, parquet, json or csv; FILE:COLUMN if the column is not `text`."},
    )
    max_unlabeled_samples: int | None = field(
        default=None, metadata={"help": "Number of texts to sample at random. Default: all texts."}
    )
    max_unlabeled_characters: int = field(default=200, metadata={"help": "Longer texts are left out."})
    variants: int = field(
        default=0, metadata={"help": "Number of variants of each training text, with other names or words, to label."}
    )
    soft_labels_file: list[str] | None = field(
        default=None, metadata={"help": "Files of soft labels from earlier runs, in place of teachers."}
    )

    def __post_init__(self) -> None:
        if self.soft_labels_file is None and not (self.teachers and (self.unlabeled_file or self.variants > 0)):
            raise ValueError("give teachers and texts that they label (unlabeled_file, variants), or soft_labels_file")

    def texts(self, seed: int) -> list[str]:
        """Return the raw texts, or a sample of them."""
        texts = read_all(self.unlabeled_file or [])
        texts = [text for text in texts if len(text) <= self.max_unlabeled_characters]
        if self.max_unlabeled_samples is not None and self.max_unlabeled_samples < len(texts):
            texts = random.Random(seed).sample(texts, self.max_unlabeled_samples)
        return texts


def load_soft_labels(
    arguments: TeacherArguments, student: str, training: TrainingArguments, label: Callable[[], Dataset]
) -> Dataset:
    """Return rows with soft labels: those of earlier runs, or new ones, which are written to the output folder.

    Args:
        arguments: the teachers, or files of earlier runs.
        student: fingerprint of the student, see `distillation.student_fingerprint`.
        training: arguments with the output folder; the main process alone asks the teachers.
        label: function that asks the teachers.

    Raises:
        ValueError: if a file of an earlier run is for another student.
    """
    if arguments.soft_labels_file is not None:
        return concatenate_datasets([_read(path, student) for path in arguments.soft_labels_file])
    path = Path(training.output_dir, SOFT_LABELS)
    with training.main_process_first(local=False, desc="teachers"):
        if training.process_index == 0:
            dataset = label()
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(path) as file:
                dataset.add_column("student", [student] * len(dataset)).to_parquet(file)
        return _read(str(path), student)


def _read(path: str, student: str) -> Dataset:
    """Read a file of soft labels."""
    dataset = Dataset.from_parquet(path)
    if "student" not in dataset.column_names or dataset.unique("student") != [student]:
        raise ValueError(
            f"{path}: the soft labels were made for another tokenizer, other labels or another version of Kiwi: label "
            "the texts again"
        )
    return dataset.remove_columns("student")
