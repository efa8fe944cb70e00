"""Train a text classifier on gold labels and on what teachers say of other texts: python recipes/distill_classifier.py

Takes the arguments of recipes/sequence_classification.py beside --teachers, --unlabeled_file and --variants. The
teachers' answers stay in the output folder, for further students over the same tokens: --soft_labels_file
outputs/.../soft_labels.parquet in place of the three. With --num_train_epochs 0 nothing else is done.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from transformers import Pipeline, pipeline, set_seed

from ..data.augmentation import with_other_words
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from ..training.arguments import CardArguments
from ..training.classification import ClassifierTrainingArguments, DataArguments, Task, build, fit
from ..training.distillation import student_fingerprint
from ..training.loading import ModelArguments
from ..training.teachers import TeacherArguments, load_soft_labels
from ..training.trainer import configure_logging, parse_arguments
from . import sample_files

SOFT = Features(
    {"input_ids": List(Value("int32")), "attention_mask": List(Value("int8")), "labels": List(Value("float32"))}
)
logger = logging.getLogger("distill_classifier")


def load_teacher(name: str, labels: Sequence[str], **options) -> Pipeline:
    """The pipeline of a teacher, which gives probabilities of all labels.

    Raises:
        ValueError: its labels are not these.
    """
    teacher = pipeline("text-classification", model=name, top_k=None, function_to_apply="softmax", **options)
    own = teacher.model.config.label2id
    if set(own) != set(labels):
        raise ValueError(f"the teacher {name} has the labels {', '.join(own)}, not {', '.join(labels)}")
    return teacher


def probabilities(
    teachers: Sequence[Pipeline], texts: list[str], labels: Sequence[str], batch_size: int, bf16: bool = False
) -> np.ndarray:
    """(N, K): the mean of the teachers' probabilities of each label for each text."""
    total = np.zeros((len(texts), len(labels)), np.float32)
    for teacher in teachers:
        with torch.autocast(teacher.device.type, torch.bfloat16, enabled=bf16):
            found = teacher(texts, batch_size=batch_size, truncation=True)
        for row, scores in zip(total, found, strict=True):
            of_label = {score["label"]: score["score"] for score in scores}
            row += [of_label[label] for label in labels]
    return total / len(teachers)


def as_soft(dataset: Dataset, num_labels: int) -> Dataset:
    """Rows whose `labels` are ids, with probabilities that say the same."""
    one_hot = np.eye(num_labels, dtype=np.float32)
    return dataset.map(lambda row: {"labels": one_hot[row["labels"]]}, features=SOFT)


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    *settings, arguments = parse_arguments(
        (ModelArguments, DataArguments, TeacherArguments, CardArguments, ClassifierTrainingArguments), argv
    )
    model_arguments, data_arguments, teacher_arguments, _ = settings
    configure_logging(arguments)
    set_seed(arguments.seed)
    task = build(model_arguments, data_arguments, sample_files("sentiment", "tsv", recipes))

    def ask() -> Dataset:
        return label(task, teacher_arguments, data_arguments, arguments, model_arguments.trust_remote_code)

    student = student_fingerprint(BiLSTMCRFProcessor(task.tokenizer), task.labels)
    soft = load_soft_labels(teacher_arguments, student, arguments, ask)
    if arguments.num_train_epochs == 0:
        return
    rows = concatenate_datasets([as_soft(task.inputs["train"], len(task.labels)), soft.cast(SOFT)])
    fit(task, rows, settings, arguments)


def label(
    task: Task,
    teacher_arguments: TeacherArguments,
    data_arguments: DataArguments,
    arguments: ClassifierTrainingArguments,
    trust_remote_code: bool,
) -> Dataset:
    """Rows of `input_ids`, `attention_mask` and `labels`, probabilities, for raw texts and variants."""
    texts, training = teacher_arguments.texts(arguments.seed), task.texts["train"]["text"][:]
    for variant in range(teacher_arguments.variants):
        texts += filter(None, with_other_words(training, arguments.seed + variant))
    texts.sort(key=len)
    options = {"device": arguments.device, "trust_remote_code": trust_remote_code}
    teachers = [load_teacher(name, task.labels, **options) for name in teacher_arguments.teachers]
    found = probabilities(teachers, texts, task.labels, arguments.per_device_eval_batch_size, arguments.bf16)
    shares = found.mean(0)
    logger.info(
        "the teachers see %s", ", ".join(f"{name} {share:.3f}" for name, share in zip(task.labels, shares, strict=True))
    )
    encoded = task.tokenizer(
        texts, truncation=True, max_length=data_arguments.max_seq_length, return_token_type_ids=False
    )
    columns = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    return Dataset.from_dict(columns | {"labels": list(found)}, features=SOFT)
