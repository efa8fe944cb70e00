"""Training of a text classifier: the data, the model, the loss and the scores of a finished run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
    pipeline,
)
from transformers.hf_argparser import HfArg
from transformers.modeling_outputs import SequenceClassifierOutput

from ..data.classification import check_classes, class_names, load_classification_datasets, merge_labels
from ..data.encoding import best_labels
from ..data.splits import SourceArguments, load_splits
from ..evaluation.markdown import one_line
from ..evaluation.metrics import ClassScorer
from ..evaluation.plots import plot_confusion
from ..evaluation.runs import CONFUSION
from ..evaluation.tasks import CLASSIFICATION
from ..processing_bilstm_crf import usable_positions
from .arguments import ModelArguments, TaggerTrainingArguments
from .loading import load_model, load_tokenizer
from .trainer import TaggerTrainer

COLUMNS = CLASSIFICATION.columns
EXAMPLES = (
    *CLASSIFICATION.examples,
    "음악도 연기도 정말 좋아서 또 보고 싶다",
    "결말이 뻔하고 대사가 유치하다",
    "가족과 함께 보면서 많이 웃었습니다 ㅎㅎ",
    "돈이 아깝다. 졸려서 혼났네",
)
logger = logging.getLogger(__name__)


@dataclass
class DataArguments(SourceArguments):
    """Arguments that name the texts and their labels."""

    label_names: list[str] | None = HfArg(default=None, help="Names of the labels 0, 1, ..., or new names: 부정 긍정.")
    merge_labels: list[str] | None = HfArg(default=None, help="Labels to be made one: 슬픔+상처, or 아픔=슬픔+상처.")
    class_weights: Literal["none", "balanced"] = HfArg(default="none", help="Weights of the classes in the loss.")
    examples: list[str] = HfArg(default_factory=lambda: list(EXAMPLES), help="Texts to classify at the end.")


@dataclass
class ClassifierTrainingArguments(TaggerTrainingArguments):
    """`TaggerTrainingArguments` with defaults for a text classifier."""

    output_dir: str = "outputs/classification"
    metric_for_best_model: str | None = HfArg(default="macro_f1", help="macro_f1 or accuracy.")
    label_names: list[str] | None = field(default=None, init=False)  # `DataArguments` has an argument of this name


class ClassifierTrainer(TaggerTrainer):
    """`TaggerTrainer` that also logs `accuracy`, the accuracy on the training batches before their updates."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seen = torch.zeros(2, device=self.args.device)  # numbers of correct texts and of all texts

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Compute the loss like `Trainer`, and count the texts that are classified correctly."""
        labels = inputs["labels"]
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            hard = labels if labels.dim() == 1 else labels.argmax(-1)
            right = (outputs["logits"].argmax(-1) == hard).sum()
            self.seen += torch.stack([right, torch.full_like(right, len(labels))])
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Add the accuracy to the entries of the training."""
        if "loss" in logs:
            right, total = self.accelerator.reduce(self.seen).tolist()
            logs["accuracy"] = right / total
            self.seen.zero_()
        super().log(logs, *args, **kwargs)


class ClassificationSetup(NamedTuple):
    """Everything that a text classifier is trained with: the model, and the texts of each split.

    Attributes:
        labels: the labels in the order of their ids.
        texts: rows of `text` and `label`.
        inputs: rows of `input_ids`, `attention_mask` and `labels`.
    """

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    labels: list[str]
    texts: DatasetDict
    inputs: dict[str, Dataset]


def prepare_classification(
    model_arguments: ModelArguments, data_arguments: DataArguments, sample: Mapping[str, Path]
) -> ClassificationSetup:
    """Load the model, and encode the texts of each split: those in the files of `sample` if no data are named."""
    datasets = load_texts(data_arguments, sample)
    texts = datasets["train"]["text"]
    tokenizer = load_tokenizer(model_arguments, texts)
    model = load_model(model_arguments, tokenizer, class_names(datasets["train"]), CLASSIFICATION, texts)
    if model.config.problem_type not in (None, "single_label_classification"):
        raise ValueError(
            f"problem_type is {model.config.problem_type}, but the texts here have one class each: leave it out, or "
            "train with the Trainer of transformers"
        )
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    tokenizer.model_max_length = usable_positions(tokenizer, model.config)  # which is saved with the model
    limit = usable_positions(tokenizer, model.config, data_arguments.max_seq_length)
    inputs = {split: encode_texts(dataset, tokenizer, labels, limit, split) for split, dataset in datasets.items()}
    return ClassificationSetup(tokenizer, model, labels, datasets, inputs)


def load_texts(arguments: DataArguments, sample: Mapping[str, Path]) -> DatasetDict:
    """Load the splits, with their labels named and merged."""
    datasets = load_splits(load_classification_datasets, arguments, sample, label_names=arguments.label_names)
    datasets = merge_labels(datasets, arguments.merge_labels or [])
    check_classes(datasets["train"])
    return datasets


def encode_texts(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], limit: int, split: str
) -> Dataset:
    """Encode rows of `text` and `label` as rows of `input_ids`, `attention_mask` and `labels`.

    Texts are cut off after `limit` tokens. `labels` are those of the model in the order of their ids.
    """
    encoded = tokenizer(dataset["text"][:], truncation=True, max_length=limit, return_token_type_ids=False)
    ids = [labels.index(name) for name in class_names(dataset)]
    columns = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    full = sum(len(row) == limit for row in encoded["input_ids"])
    logger.info("%s: %d texts, %d that reach the limit of %d tokens or were cut", split, len(dataset), full, limit)
    return Dataset.from_dict(columns | {"labels": [ids[label] for label in dataset["label"]]})


def class_loss(
    kind: str, inputs: Dataset, num_labels: int, arguments: TrainingArguments
) -> Callable[..., torch.Tensor]:
    """Return the loss for `class_weights`, a `compute_loss_func` of `Trainer`: the mean cross entropy over texts.

    Balanced weights are inversely proportional to the sizes of the classes, with the mean 1 over the texts of `inputs`.
    """
    weights = None
    if kind == "balanced":
        balanced = compute_class_weight("balanced", classes=np.arange(num_labels), y=inputs["labels"][:])
        weights = torch.tensor(balanced, dtype=torch.float, device=arguments.device)

    def loss(
        outputs: SequenceClassifierOutput, labels: torch.Tensor, num_items_in_batch: int | None = None
    ) -> torch.Tensor:
        # The labels are ids (B,), or probabilities (B, K). `Trainer` counts all elements of those in an update.
        options = {"weight": weights, "label_smoothing": arguments.label_smoothing_factor, "reduction": "sum"}
        total = cross_entropy(outputs["logits"].float(), labels, **options)
        items = labels.numel() if num_items_in_batch is None else num_items_in_batch
        return total * (labels.numel() / len(labels)) / items

    return loss


def train_classifier(
    setup: ClassificationSetup, rows: Dataset, settings: Sequence[Any], arguments: ClassifierTrainingArguments
) -> ClassifierTrainer:
    """Train a classifier, save the finished run, print its scores and examples, and return the trainer.

    Args:
        setup: the model and the data.
        rows: the rows to train on: those of `setup.inputs["train"]`, and further ones.
        settings: the argument dataclasses of the run without those of the training; the second are `DataArguments`.
        arguments: the arguments of the training.
    """
    data_arguments, labels, inputs = settings[1], setup.labels, setup.inputs
    scorers = {split: ClassScorer(labels, dataset["labels"]) for split, dataset in inputs.items()}
    trainer = ClassifierTrainer(
        setup.model,
        arguments,
        data_collator=DataCollatorWithPadding(setup.tokenizer),
        train_dataset=rows,
        eval_dataset=inputs["validation"],
        processing_class=setup.tokenizer,
        compute_loss_func=class_loss(data_arguments.class_weights, inputs["train"], len(labels), arguments),
        compute_metrics=scorers["validation"],
        preprocess_logits_for_metrics=best_labels,
        columns=COLUMNS,
        choices=asdict(settings[0]) | {"class_weights": data_arguments.class_weights},
    )
    final, results = trainer.train_and_score(inputs, scorers)
    results |= {f"{split}_sentences": len(dataset) for split, dataset in inputs.items()}
    if trainer.is_world_process_zero():
        pairs = zip(setup.texts["validation"]["text"], final.label_ids, final.predictions, strict=True)
        predicted = ((text, labels[gold], labels[guess]) for text, gold, guess in pairs)
        trainer.finish(settings, results, predicted, {"accuracy": "training accuracy"})
        plot_confusion(final.label_ids, final.predictions, labels, Path(arguments.output_dir, CONFUSION))
        scores = {label: results[f"eval_{label}_f1"] for label in labels if f"eval_{label}_f1" in results}
        print("F1:", ", ".join(f"{one_line(label)} {score:.4f}" for label, score in scores.items()))
        if not data_arguments.examples:
            return trainer
        print("\nExamples, classified by the saved model:")
        classifier = pipeline("text-classification", model=arguments.output_dir, trust_remote_code=True)
        for text, best in zip(data_arguments.examples, classifier(data_arguments.examples, truncation=True)):
            print(f"  {one_line(best['label'])}\t{best['score']:.4f}\t{one_line(text)}")
    return trainer
