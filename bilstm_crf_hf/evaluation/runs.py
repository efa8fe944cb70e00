"""The run folder: the names of its files, what a finished training writes there, and reading it back."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers.modelcard import extract_hyperparameters_from_trainer

from ..alignment import Span, tags_from_spans
from ..data.rows import parse_json, read_rows
from ..utils.environment import hardware, versions
from ..utils.files import to_json, write_atomically, write_json
from .metrics import ClassificationMetric, entity_scores
from .plots import plot_training
from .tasks import CLASSIFICATION, TAGGING, Task, task_of

if TYPE_CHECKING:
    from transformers import Trainer

CONFIG = "config.json"
RESULTS = "all_results.json"
"""Scores, times and sizes; written last, so that a folder with this file holds a finished run."""
CALIBRATION = "calibration"
"""The field of `RESULTS` with what the command `calibrate` has measured."""
TRAINER_STATE = "trainer_state.json"
TRAINING_RUN = "training_run.json"
"""Arguments, hyperparameters, hardware and versions."""
PREDICTIONS = "validation_predictions.jsonl"
COMPARISON_RUN = "comparison_run.json"
"""Settings with which the command `compare` started the run."""
SOFT_LABELS = "soft_labels.parquet"
"""The teachers' probabilities, in a run of distillation."""
ENCODER_TOKENIZER = "pieces"
"""Folder with the tokenizer of the encoder beside a tagger of characters."""
FIELDS = ("text", "gold", "predicted")
"""The fields of a line of `PREDICTIONS`."""
CURVES, CONFUSION = "training.png", "confusion.png"


# Writing


def save_run(
    trainer: "Trainer",
    settings: Sequence[Any],
    results: dict[str, Any],
    predictions: Iterable[tuple[str, Any, Any]],
    columns: Mapping[str, str],
    training_columns: Mapping[str, str],
) -> None:
    """Write a finished run, whose model is saved, to the output folder: settings, predictions, curves and results.

    Args:
        settings: the argument dataclasses of the command beside the training arguments.
        results: content of `all_results.json`.
        predictions: see [`save_predictions`].
        columns, training_columns: see `plots.plot_training`.
    """
    folder = Path(trainer.args.output_dir)
    facts = {
        "arguments": {name: value for part in settings for name, value in asdict(part).items()},
        "hyperparameters": training_hyperparameters(trainer),
        "hardware": hardware(trainer.args.device),
        "versions": versions(),
    }
    write_json(folder / TRAINING_RUN, facts)
    save_predictions(folder / PREDICTIONS, predictions)
    plot_training(trainer.state.log_history, folder / CURVES, columns, training_columns)
    write_json(folder / RESULTS, dict(sorted(results.items())))


def save_model(trainer: "Trainer", tokenizers: Mapping[str, Any]) -> None:
    """Save the model and its tokenizer in the output folder, and further tokenizers in folders of it.

    Results of an earlier run in the folder are deleted first, since they are not those of this model.
    """
    folder = Path(trainer.args.output_dir)
    (folder / RESULTS).unlink(missing_ok=True)
    trainer.model.save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)
    for name, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(folder / name)


def save_predictions(path: Path, predictions: Iterable[tuple[str, Any, Any]]) -> None:
    """Write one JSON object per line, completely or not at all, with the text, gold and prediction of each example.

    Gold and prediction are lists of spans, or names of classes.
    """
    rows = (dict(zip(FIELDS, row, strict=True)) for row in predictions)
    with write_atomically(path) as file:
        file.writelines(f"{to_json(row, str(path))}\n".encode() for row in rows)


def training_hyperparameters(trainer: "Trainer") -> dict[str, Any]:
    """Return the hyperparameters that the cards of `Trainer` list, and those that only our arguments have."""
    arguments = trainer.args
    names = ["weight_decay", "max_grad_norm", "bf16", "learning_rate_decay", "ema_decay"]
    names += [f"{part}_learning_rate" for part in ("head", "crf", "embedding")]
    listed = extract_hyperparameters_from_trainer(trainer)
    own = {name: getattr(arguments, name, None) for name in names}
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # Accelerate wraps it
    listed["optimizer"] = f"{type(optimizer).__name__}, betas {arguments.adam_beta1:g} and {arguments.adam_beta2:g}"
    if own["learning_rate_decay"]:
        listed["lr_scheduler_type"] = "exponential, one step per epoch"
    # JSON has no infinity, which `max_grad_norm` may be.
    return listed | {name: "inf" if value == math.inf else value for name, value in own.items() if value}


def validation_curve(log_history: list[dict[str, Any]], metric: str) -> list[tuple[float, float]]:
    """Return pairs of an epoch and its validation score, from `trainer.state.log_history` and a key without `eval_`."""
    key = f"eval_{metric}"
    return [(entry["epoch"], entry[key]) for entry in log_history if key in entry]


def training_summary(
    log_history: list[dict[str, Any]],
    epoch_seconds: list[float],
    metric: str | None,
    better: Callable[..., tuple[float, float]] = max,
) -> dict[str, float]:
    """Return the best and the mean validation score over the epochs, if there are any, and the training time.

    `epoch_seconds` is the training time of each epoch, without evaluation; `better` is min for a loss; see
    [`validation_curve`] for the others.
    """
    summary: dict[str, float] = {
        "epochs": len(epoch_seconds),
        "train_seconds": sum(epoch_seconds),
        "seconds_per_epoch": median(epoch_seconds) if epoch_seconds else 0.0,
    }
    if metric is not None and (curve := validation_curve(log_history, metric)):
        epoch, best = better(curve, key=lambda pair: pair[1])
        mean_score = mean(score for _, score in curve)
        summary |= {f"best_{metric}": best, "best_epoch": epoch, f"mean_{metric}": mean_score}
    return summary


def print_scores(results: dict[str, float], columns: Mapping[str, str], metric: str | None, output_dir: str) -> None:
    """Print the summary of `training_summary` for the score `metric`, and the scores `columns` of the saved model."""
    line = (
        f"{results['train_seconds']:.0f} s for {results['epochs']} epochs of training, "
        f"{results['seconds_per_epoch']:.1f} s per epoch"
    )
    if metric is not None and f"best_{metric}" in results:
        line = (
            f"best {columns.get(metric, metric)} {results[f'best_{metric}']:.4f} in epoch {results['best_epoch']:g}, "
            f"mean {results[f'mean_{metric}']:.4f}, {line}"
        )
    print(f"\n{line}")
    print("saved model:", ", ".join(f"{name} {results[f'eval_{key}']:.4f}" for key, name in columns.items()))
    print(f"saved in {output_dir}, for from_pretrained(..., trust_remote_code=True)")


# Reading


class Predictions(NamedTuple):
    """The validation texts with their gold labels and the predictions: sorted entities, or the name of a class."""

    texts: list[str]
    gold: list
    predicted: list


@dataclass(frozen=True)
class Run:
    """A finished run with the contents of its files; `history` is the log history in `trainer_state.json`."""

    folder: Path
    config: dict[str, Any]
    results: dict[str, Any]
    history: list[dict[str, Any]]
    predictions: Predictions

    @cached_property
    def task(self) -> Task:
        """Return the task of the model."""
        return task_of(self.config, str(self.folder))

    @property
    def system(self) -> str:
        """Return the name of the folder without `-seed42`."""
        return re.sub(r"-seed\d+$", "", self.folder.resolve().name)

    @property
    def seed(self) -> int:
        """Return the random seed of the training."""
        return self.results["seed"]

    @property
    def weight_bytes(self) -> int:
        """Return the size of the weights in bytes."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    @cached_property
    def scores(self) -> dict[str, float]:
        """Return the scores of the predictions, see `metrics.entity_scores` and `metrics.ClassificationMetric`."""
        texts, gold, predicted = self.predictions
        if self.task is CLASSIFICATION:
            return ClassificationMetric().compute(predictions=predicted, references=gold)
        return entity_scores(texts, gold, predicted, self.config["id2label"].values())

    @property
    def score(self) -> float:
        """Return the main score of the task."""
        return self.scores[self.task.main_metric]

    @cached_property
    def summary(self) -> dict[str, float]:
        """Return the best and the mean main score over the epochs, see `training_summary`."""
        return training_summary(self.history, [], self.task.main_metric)

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Return pairs of an epoch and its main score."""
        return validation_curve(self.history, self.task.main_metric)

    @property
    def seconds(self) -> float:
        """Return the time of the whole training, which `train_seconds` of earlier versions lacks after a resume."""
        return self.results["seconds_per_epoch"] * max(entry["epoch"] for entry in self.history)


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, or the files are not of the same run.
    """
    results = read_json(folder / RESULTS, "seed", "parameters", "seconds_per_epoch")
    history = read_json(folder / TRAINER_STATE, "log_history")["log_history"]
    config = read_json(folder / CONFIG, "id2label")
    predictions = read_predictions(folder / PREDICTIONS, task_of(config, str(folder)))
    run = Run(folder, config, results, history, predictions)
    key = f"eval_{run.task.main_metric}"
    if not run.curve:
        raise ValueError(f"{folder / TRAINER_STATE}: there is no {key} in it. Train with eval_strategy: epoch")
    if not run.weight_bytes:
        raise FileNotFoundError(f"{folder}: there are no weights (*.safetensors). Train again")
    if not abs(results.get(key, -1) - run.score) <= 1e-6:  # NaN is another score, too
        raise ValueError(
            f"{folder / PREDICTIONS}: the predictions have {run.task.main_metric} {run.score:.6f}, but {key} in "
            f"{RESULTS} is {results.get(key)}. The files are not of the same run: train again"
        )
    return run


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON file of a run folder, with the errors of [`read_run`]; `keys` are those that it must have."""
    _check_exists(path)
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: the file is damaged ({error}). Delete the folder and train again") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected an object. Delete the folder and train again")
    if missing := [key for key in keys if key not in values]:
        raise ValueError(f"{path}: there is no {', '.join(missing)} in it. Train again with this version")
    return values


def read_predictions(path: Path, task: Task) -> Predictions:
    """Read a file that [`save_predictions`] wrote, with the errors of [`read_run`]."""
    _check_exists(path)
    rows = []
    for place, columns in read_rows(path):
        try:
            rows.append(_parse_prediction(columns, task))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{place}: {error}. Train again, or correct the file") from None
    if not rows:
        raise ValueError(f"{path}: the file is empty. Train again with a validation split")
    return Predictions(*map(list, zip(*rows, strict=True)))


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Name the folder of a finished run, or train again")


def _parse_prediction(row: dict[str, Any], task: Task) -> tuple[str, Any, Any]:
    """Return text, gold and prediction of a row; raise a TypeError or ValueError if it is damaged."""
    kind, words = (list, "lists of [start, end, label]") if task is TAGGING else (str, "labels")
    fields: list[Any] = [row.get(name) for name in FIELDS]
    if not all(map(isinstance, fields, (str, kind, kind))):
        raise ValueError(f"expected `text`, and `gold` and `predicted`, both {words} ({task.title})")
    text, *sides = fields
    if task is TAGGING:
        sides = [sorted(Span(*item) for item in side) for side in sides]
        for spans in sides:
            tags_from_spans(spans, len(text))  # checks that they lie in the text and do not overlap
    return text, *sides
