"""Arguments that name teachers and texts, and the file of their soft labels; both kinds of distillation use them."""

import glob
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedModel, TrainingArguments
from transformers.hf_argparser import HfArg

from ..data.raw_text import read_all
from ..data.tables import check_parquet
from ..evaluation.runs import SOFT_LABELS
from ..pipeline_bilstm_crf import check_finite
from ..utils.files import write_atomically
from .arguments import TEXTS

logger = logging.getLogger(__name__)


@dataclass
class TeacherArguments:
    """Arguments that say which models label which texts."""

    teachers: list[str] | None = HfArg(default=None, help="Models whose mean probabilities are the soft labels.")
    unlabeled_file: list[str] | None = HfArg(default=None, help=TEXTS)
    max_unlabeled_samples: int | None = HfArg(default=None, help="Number of random texts to label. Default: all.")
    max_unlabeled_characters: int = HfArg(default=200, help="Longer texts are left out.")
    variants: int = HfArg(default=0, help="Number of variants of each training text, with other names or words.")
    soft_labels_file: list[str] | None = HfArg(default=None, help="Soft labels of earlier runs, in place of teachers.")

    def __post_init__(self) -> None:
        if self.soft_labels_file is None and not (self.teachers and (self.unlabeled_file or self.variants > 0)):
            raise ValueError("give teachers and texts that they label (unlabeled_file, variants), or soft_labels_file")
        if self.soft_labels_file is not None and (self.teachers or self.unlabeled_file or self.variants):
            raise ValueError(
                "soft_labels_file takes the place of teachers, unlabeled_file and variants: leave these out"
            )

    def texts(self, seed: int) -> list[str]:
        """Return the raw texts, or a sample of them."""
        texts = read_all(self.unlabeled_file or [])
        short = [text for text in texts if len(text) <= self.max_unlabeled_characters]
        if len(short) < len(texts):
            dropped, limit = len(texts) - len(short), self.max_unlabeled_characters
            logger.warning("dropped %d texts of more than %d characters (max_unlabeled_characters)", dropped, limit)
        texts = short
        if self.max_unlabeled_samples is not None and self.max_unlabeled_samples < len(texts):
            texts = random.Random(seed).sample(texts, self.max_unlabeled_samples)
        return texts


def check_teacher(model: PreTrainedModel, labels: Sequence[str]) -> None:
    """Raise ValueError if a teacher has other labels than its student, or weights that are not finite."""
    check_finite(model)
    own = model.config.label2id
    if set(own) != set(labels):
        raise ValueError(f"the teacher {model.name_or_path} has the labels {', '.join(own)}, not {', '.join(labels)}")


def load_soft_labels(
    arguments: TeacherArguments, student: str, training: TrainingArguments, label: Callable[[], Dataset]
) -> Dataset:
    """Return rows with soft labels: those of earlier runs, or new ones, which are written to the output folder.

    Of several files, only the columns that all have are read: students may have had different inputs.

    Args:
        arguments: the teachers, or files of earlier runs.
        student: fingerprint of the student, see `distillation.student_fingerprint`.
        training: arguments with the output folder.
        label: function that asks the teachers; only the main process calls it.

    Raises:
        FileNotFoundError: if a file of an earlier run does not exist.
        ValueError: if a file of an earlier run is damaged, or for another student.
    """
    if arguments.soft_labels_file is not None:
        parts = [_read(path, student) for path in arguments.soft_labels_file]
        shared = [name for name in parts[0].column_names if all(name in part.column_names for part in parts)]
        return concatenate_datasets([part.select_columns(shared) for part in parts])
    path = Path(training.output_dir, SOFT_LABELS)
    with training.main_process_first(local=False, desc="teachers"):
        if training.process_index == 0:
            dataset = label()
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(path) as file:
                dataset.add_column("student", [student] * len(dataset)).to_parquet(file)
        return _read(str(path), student)


def _read(path: str, student: str) -> Dataset:
    check_parquet(Path(path))
    dataset = Dataset.from_parquet(glob.escape(path))  # which takes the path for a pattern
    if "student" not in dataset.column_names or dataset.unique("student") != [student]:
        raise ValueError(
            f"{path}: the soft labels were made for another tokenizer or other labels: label the texts again"
        )
    return dataset.remove_columns("student")
