"""Training of a text classifier: data, model and trainer from the arguments, and what a finished run leaves."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from sklearn.utils.class_weight import compute_class_weight
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
    pipeline,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from ..data.classification import (
    check_classes,
    class_names,
    load_classification_datasets,
    merge_labels,
)
from ..data.encoding import best_labels
from ..data.splits import SourceArguments, load_splits
from ..evaluation.metrics import ClassificationMetric
from ..evaluation.plots import plot_confusion
from ..evaluation.runs import CONFUSION, print_scores, save_run
from ..evaluation.tasks import CLASSIFICATION
from ..processing_bilstm_crf import UNLIMITED
from .loading import ModelArguments, load_model, load_tokenizer
from .trainer import TaggerTrainer, TaggerTrainingArguments

COLUMNS = CLASSIFICATION.columns
EXAMPLES = (
    "두 시간이 어떻게 지나갔는지 모를 만큼 즐거웠다.",
    "기대하고 봤는데 끝까지 보기가 힘들었어요.",
    "음악도 연기도 정말 좋아서 또 보고 싶다",
    "결말이 뻔하고 대사가 유치하다",
    "가족과 함께 보면서 많이 웃었습니다 ㅎㅎ",
    "돈이 아깝다. 졸려서 혼났네",
)
logger = logging.getLogger("sequence_classification")


@dataclass
class DataArguments(SourceArguments):
    """Which texts are trained on, under which labels."""

    label_names: list[str] | None = field(
        default=None, metadata={"help": "Names of labels that are the integers 0, 1, ..., or new ones: 부정 긍정."}
    )
    merge_labels: list[str] | None = field(
        default=None, metadata={"help": "Labels to make one: 슬픔+상처, or 아픔=슬픔+상처 with a name of its own."}
    )
    class_weights: Literal["none", "balanced"] = field(
        default="none", metadata={"help": "balanced: in the loss, a class weighs as much as it is rare in training."}
    )
    examples: list[str] = field(
        default_factory=lambda: list(EXAMPLES), metadata={"help": "Texts that the saved model classifies at the end."}
    )


@dataclass
class ClassifierTrainingArguments(TaggerTrainingArguments):
    """`TaggerTrainingArguments` whose best model is the one with the best macro F1."""

    output_dir: str = "outputs/classification"
    metric_for_best_model: str | None = field(default="macro_f1", metadata={"help": "macro_f1 or accuracy."})
    label_names: list[str] | None = field(default=None, init=False)  # no argument: `DataArguments` has one of this name

    def __post_init__(self) -> None:
        if self.metric_for_best_model not in COLUMNS:
            raise ValueError(f"metric_for_best_model is {' or '.join(COLUMNS)}, not {self.metric_for_best_model}")
        super().__post_init__()


class WeightedLoss:
    """Cross entropy in which each class has a weight, as `compute_loss_func` of `Trainer`.

    Labels are ids (B,), or probabilities (B, K).
    """

    def __init__(self, weights: torch.Tensor | None, smoothing: float = 0.0) -> None:
        """
        Args:
            weights: (K,), on the model's device. Balanced ones are 1 on average over the labelled texts, and the loss
                is a mean over texts.
            smoothing: `label_smoothing_factor` of the training.
        """
        self.weights, self.smoothing = weights, smoothing

    def __call__(
        self, outputs: SequenceClassifierOutput, labels: torch.Tensor, num_items_in_batch: int | None = None
    ) -> torch.Tensor:
        """`num_items_in_batch`: elements of the labels that one update sees, K of a text if they are probabilities."""
        logits = outputs["logits"].float()
        options = {"weight": self.weights, "label_smoothing": self.smoothing, "reduction": "sum"}
        total = torch.nn.functional.cross_entropy(logits, labels, **options)
        items = labels.numel() if num_items_in_batch is None else num_items_in_batch
        return total * (labels.numel() / len(labels)) / items


class ClassifierTrainer(TaggerTrainer):
    """`TaggerTrainer` that beside the training loss logs `accuracy`: on training batches, as the model met them."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seen = torch.zeros(2, device=self.args.device)  # texts classified right, and all

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs["labels"]
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            hard = labels if labels.dim() == 1 else labels.argmax(-1)
            right = (outputs["logits"].argmax(-1) == hard).sum()
            self.seen += torch.stack([right, torch.full_like(right, len(labels))])
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        if "loss" in logs:
            right, total = self.accelerator.reduce(self.seen).tolist()
            logs["accuracy"] = right / total
            self.seen.zero_()
        super().log(logs, *args, **kwargs)


def load_data(arguments: DataArguments, sample: Mapping[str, Path]) -> DatasetDict:
    """The splits, with labels named and merged."""
    datasets = load_splits(load_classification_datasets, arguments, sample, label_names=arguments.label_names)
    datasets = merge_labels(datasets, arguments.merge_labels or [])
    check_classes(datasets["train"])
    return datasets


def encode(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], limit: int, split: str
) -> Dataset:
    """Rows of `input_ids`, `attention_mask`, and `labels` as ids into those of the model."""
    encoded = tokenizer(dataset["text"][:], truncation=True, max_length=limit, return_token_type_ids=False)
    ids = [labels.index(name) for name in class_names(dataset)]
    columns = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    full = sum(len(row) == limit for row in encoded["input_ids"])
    logger.info("%s: %d texts, %d as long as the limit of %d tokens, or cut there", split, len(dataset), full, limit)
    return Dataset.from_dict(columns | {"labels": [ids[label] for label in dataset["label"]]})


def scorer(labels: Sequence[str]):
    """A `compute_metrics` for predicted label ids: `metrics.ClassificationMetric`."""
    metric = ClassificationMetric()

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        predicted, gold = ([labels[i] for i in ids] for ids in (prediction.predictions, prediction.label_ids))
        return metric.compute(predictions=predicted, references=gold)

    return compute


def class_loss(kind: str, inputs: Dataset, num_labels: int, arguments: TrainingArguments) -> WeightedLoss:
    """The loss for `class_weights`; balanced ones are in inverse proportion to the number of rows of a class."""
    weights = None
    if kind == "balanced":
        balanced = compute_class_weight("balanced", classes=np.arange(num_labels), y=inputs["labels"][:])
        weights = torch.tensor(balanced, dtype=torch.float, device=arguments.device)
    return WeightedLoss(weights, arguments.label_smoothing_factor)


def print_class_scores(results: dict[str, float], labels: Sequence[str]) -> None:
    scores = ((label, results.get(f"eval_{label}_f1", float("nan"))) for label in labels)
    print("F1:", ", ".join(f"{label} {score:.4f}" for label, score in scores))


def print_examples(output_dir: str, texts: Sequence[str]) -> None:
    """Loads the saved model again and has it classify texts."""
    classifier = pipeline("text-classification", model=output_dir, trust_remote_code=True)
    print("\nExamples, by the model loaded again:")
    for text, answer in zip(texts, classifier(list(texts), truncation=True), strict=True):
        print(f"  {answer['label']}\t{answer['score']:.4f}\t{text}")


class Task(NamedTuple):
    """What is trained on what."""

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    labels: list[str]
    texts: DatasetDict
    inputs: dict[str, Dataset]


def build(model_arguments: ModelArguments, data_arguments: DataArguments, sample: Mapping[str, Path]) -> Task:
    datasets = load_data(data_arguments, sample)
    tokenizer = load_tokenizer(model_arguments, datasets["train"]["text"])
    model = load_model(model_arguments, tokenizer, class_names(datasets["train"]), CLASSIFICATION)
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    limit = min(data_arguments.max_seq_length or tokenizer.model_max_length, UNLIMITED)
    inputs = {split: encode(dataset, tokenizer, labels, limit, split) for split, dataset in datasets.items()}
    logger.info("%s: %d parameters", type(model).__name__, model.num_parameters())
    return Task(tokenizer, model, labels, datasets, inputs)


def fit(task: Task, rows: Dataset, settings: Sequence[Any], arguments: ClassifierTrainingArguments) -> None:
    """Trains on `rows`, saves all that a finished run has, and shows what came of it.

    Args:
        rows: those of `task.inputs["train"]`, and any more.
        settings: all other arguments; the second ones are `DataArguments`.
    """
    data_arguments, labels, inputs = settings[1], task.labels, task.inputs
    score = scorer(labels)
    trainer = ClassifierTrainer(
        task.model,
        arguments,
        data_collator=DataCollatorWithPadding(task.tokenizer),
        train_dataset=rows,
        eval_dataset=inputs["validation"],
        processing_class=task.tokenizer,
        compute_loss_func=class_loss(data_arguments.class_weights, inputs["train"], len(labels), arguments),
        compute_metrics=score,
        preprocess_logits_for_metrics=best_labels,
        columns=COLUMNS,
    )
    final, results = trainer.train_and_score(inputs, dict.fromkeys(inputs, score))
    results |= {f"{split}_sentences": len(dataset) for split, dataset in inputs.items()}
    if soft := len(rows) - len(inputs["train"]):
        results["train_soft_sentences"] = soft
    if trainer.is_world_process_zero():
        pairs = zip(task.texts["validation"]["text"], final.label_ids, final.predictions, strict=True)
        predicted = ((text, labels[gold], labels[guess]) for text, gold, guess in pairs)
        curves = {key: f"validation {name}" for key, name in COLUMNS.items()}
        save_run(trainer, settings, results, predicted, curves, {"accuracy": "training accuracy"})
        plot_confusion(final.label_ids, final.predictions, labels, Path(arguments.output_dir, CONFUSION))
        print_scores(results, COLUMNS, arguments.metric_for_best_model, arguments.output_dir)
        print_class_scores(results, labels)
        print_examples(arguments.output_dir, data_arguments.examples)
        if arguments.push_to_hub:
            print("published:", trainer.push_to_hub())
