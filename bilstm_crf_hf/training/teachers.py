"""Who labels which raw text, and the answers on disk: what the recipes that distil have in common."""

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
    """Who labels which text."""

    teachers: list[str] | None = field(
        default=None, metadata={"help": "Models on the Hub or in folders, whose probabilities are averaged."}
    )
    unlabeled_file: list[str] | None = field(
        default=None,
        metadata={"help": "Files of text: txt, parquet, json or csv; FILE:COLUMN where the column is not `text`."},
    )
    max_unlabeled_samples: int | None = field(default=None, metadata={"help": "Use a random sample of as many texts."})
    max_unlabeled_characters: int = field(default=200, metadata={"help": "Longer texts are left out."})
    variants: int = field(
        default=0, metadata={"help": "How often each training text is labelled with other names, or words, in it."}
    )
    soft_labels_file: list[str] | None = field(
        default=None, metadata={"help": "What teachers said in earlier runs, in place of asking them."}
    )

    def __post_init__(self) -> None:
        if self.soft_labels_file is None and not (self.teachers and (self.unlabeled_file or self.variants > 0)):
            raise ValueError("give teachers and texts that they label (unlabeled_file, variants), or soft_labels_file")

    def texts(self, seed: int) -> list[str]:
        """The raw texts, or a sample of them."""
        texts = read_all(self.unlabeled_file or [])
        texts = [text for text in texts if len(text) <= self.max_unlabeled_characters]
        if self.max_unlabeled_samples is not None and self.max_unlabeled_samples < len(texts):
            texts = random.Random(seed).sample(texts, self.max_unlabeled_samples)
        return texts


def answers(
    arguments: TeacherArguments, student: str, training: TrainingArguments, ask: Callable[[], Dataset]
) -> Dataset:
    """The rows that `ask` makes, written to the output folder; or those of earlier runs for such a student.

    Args:
        student: see `distillation.student_of`.

    Raises:
        ValueError: answers of an earlier run are for another student.
    """
    if arguments.soft_labels_file is not None:
        return concatenate_datasets([_read(path, student) for path in arguments.soft_labels_file])
    path = Path(training.output_dir, SOFT_LABELS)
    with training.main_process_first(local=False, desc="teachers"):
        if training.process_index == 0:
            dataset = ask()
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(path) as file:
                dataset.add_column("student", [student] * len(dataset)).to_parquet(file)
        return _read(str(path), student)


def _read(path: str, student: str) -> Dataset:
    dataset = Dataset.from_parquet(path)
    if "student" not in dataset.column_names or dataset.unique("student") != [student]:
        raise ValueError(f"{path}: made for another tokenizer, other labels or morphemes: ask anew")
    return dataset.remove_columns("student")
