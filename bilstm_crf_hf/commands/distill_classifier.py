"""Train a text classifier on gold and soft labels: bilstm-crf distill-classifier [config.yaml] [--argument value ...]

--teachers names text classifiers, which label the texts of --unlabeled_file and variants of the training texts. The
other arguments are those of `bilstm-crf classify`. The soft labels stay in the output folder: further students with the
same tokens and labels read them with --soft_labels_file outputs/distilled/soft_labels.parquet instead of asking the
teachers. With --num_train_epochs 0 the command only writes the soft labels.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from transformers import Pipeline, pipeline

from ..data.augmentation import with_other_words
from ..models import model_path
from ..processing_bilstm_crf import BiLSTMCRFProcessor, usable_positions
from ..training.arguments import CardArguments, ModelArguments
from ..training.classification import (
    ClassificationSetup,
    ClassifierTrainingArguments,
    DataArguments,
    prepare_classification,
    train_classifier,
)
from ..training.distillation import student_fingerprint
from ..training.teachers import TeacherArguments, check_teacher, load_soft_labels
from . import sample_config, sample_files
from .training_steps import publish_if_asked, start_training

SOFT = Features(
    {"input_ids": List(Value("int32")), "attention_mask": List(Value("int8")), "labels": List(Value("float32"))}
)
"""Columns of rows whose labels are soft labels."""

logger = logging.getLogger(__name__)


def load_teacher(name: str, labels: Sequence[str], **options) -> Pipeline:
    """Load the pipeline of a teacher, which returns the probabilities of all labels, those of the student."""
    teacher = pipeline(
        "text-classification", model=model_path(name), top_k=None, function_to_apply="softmax", **options
    )
    check_teacher(teacher.model, labels)
    teacher.tokenizer.model_max_length = usable_positions(teacher.tokenizer, teacher.model.config)
    return teacher


def soft_labels(
    teachers: Sequence[Pipeline], texts: list[str], labels: Sequence[str], batch_size: int, bf16: bool = False
) -> np.ndarray:
    """Return the soft labels (N, K) of N texts: the mean of the teachers' probabilities of K labels."""
    total = np.zeros((len(texts), len(labels)), np.float32)
    for teacher in teachers:
        with torch.autocast(teacher.device.type, torch.bfloat16, enabled=bf16):
            found = teacher(texts, batch_size=batch_size, truncation=True)
        for row, scores in zip(total, found, strict=True):
            by_label = {score["label"]: score["score"] for score in scores}
            row += [by_label[label] for label in labels]
    return total / len(teachers)


def with_soft_labels(dataset: Dataset, num_labels: int) -> Dataset:
    """Replace the label ids of rows by soft labels, which are 1 for the gold label."""
    one_hot = np.eye(num_labels, dtype=np.float32)
    return dataset.map(lambda row: {"labels": one_hot[row["labels"]]}, features=SOFT)


def label_texts(setup: ClassificationSetup, settings: Sequence[Any], arguments: ClassifierTrainingArguments) -> Dataset:
    """Return rows of `input_ids`, `attention_mask` and soft `labels` for raw texts and variants of training texts."""
    model_arguments, data_arguments, teacher_arguments, _ = settings
    texts, training = teacher_arguments.texts(arguments.seed), setup.texts["train"]["text"][:]
    for variant in range(teacher_arguments.variants):
        texts += filter(None, with_other_words(training, arguments.seed + variant))
    texts.sort(key=len)
    options = {"device": arguments.device, "trust_remote_code": model_arguments.trust_remote_code}
    teachers = [load_teacher(name, setup.labels, **options) for name in teacher_arguments.teachers]
    soft = soft_labels(teachers, texts, setup.labels, arguments.per_device_eval_batch_size, arguments.bf16)
    shares = ", ".join(f"{name} {share:.3f}" for name, share in zip(setup.labels, soft.mean(0), strict=True))
    logger.info("mean soft labels: %s", shares)
    limit = usable_positions(setup.tokenizer, setup.model.config, data_arguments.max_seq_length)
    encoded = setup.tokenizer(texts, truncation=True, max_length=limit, return_token_type_ids=False)
    columns = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    return Dataset.from_dict(columns | {"labels": list(soft)}, features=SOFT)


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    with start_training(
        (ModelArguments, DataArguments, TeacherArguments, CardArguments, ClassifierTrainingArguments),
        argv,
        __doc__,
        sample_config("sentiment_sample.yaml", recipes),
    ) as (*settings, arguments):
        setup = prepare_classification(settings[0], settings[1], sample_files("sentiment", "tsv", recipes))
        student = student_fingerprint(BiLSTMCRFProcessor(setup.tokenizer), setup.labels)
        soft = load_soft_labels(settings[2], student, arguments, lambda: label_texts(setup, settings, arguments))
        if arguments.num_train_epochs == 0:
            return
        rows = concatenate_datasets([with_soft_labels(setup.inputs["train"], len(setup.labels)), soft.cast(SOFT)])
        publish_if_asked(train_classifier(setup, rows, settings, arguments))
