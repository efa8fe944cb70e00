"""Summaries and pictures of training runs."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from types import MappingProxyType
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from .files import whole

logger = logging.getLogger(__name__)

PREDICTIONS = "validation_predictions.jsonl"
"""The file in a run's folder that `comparison` reads sentences from."""


def save_predictions(path: Path | str, rows: Iterable[dict[str, Any]]) -> None:
    """Writes a JSON object a line, one a validation example, to the file `path`; it appears only once it is whole.

    Args:
        rows: of entities, `{"text": str, "gold": [[start, end, label], ...], "predicted": [[start, end, label], ...]}`;
            of classes, `{"text": str, "gold": label, "predicted": label}`.
    """
    with whole(Path(path)) as file:
        file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in rows)


def training_summary(
    log_history: list[dict[str, Any]], epoch_seconds: list[float], metric: str = "f1"
) -> dict[str, float]:
    """Best and mean of a validation score over the epochs, and how long training took.

    Args:
        log_history: `trainer.state.log_history`.
        epoch_seconds: seconds of training of each epoch, evaluation not counted in.
        metric: name of the score, without `eval_`.
    """
    scores = [(entry[f"eval_{metric}"], entry["epoch"]) for entry in log_history if f"eval_{metric}" in entry]
    best, epoch = max(scores, key=lambda pair: pair[0])
    return {
        f"best_{metric}": best,
        "best_epoch": epoch,
        f"mean_{metric}": mean(score for score, _ in scores),
        "epochs": len(epoch_seconds),
        "train_seconds": sum(epoch_seconds),
        "seconds_per_epoch": mean(epoch_seconds) if epoch_seconds else 0.0,
    }


def plot_training(
    log_history: list[dict[str, Any]],
    path: Path,
    columns: dict[str, str],
    training_columns: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """A picture of the losses and of the scores named in `columns` by epoch. Without matplotlib, a warning says so.

    Args:
        training_columns: likewise, of scores on the training set; without `eval_`, the keys of the log are these.
    """
    if not _can_plot(path):
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    _plot_columns(losses, log_history, {"loss": "training", "eval_loss": "validation"})
    _plot_columns(scores, log_history, {**training_columns, **{f"eval_{key}": name for key, name in columns.items()}})
    for axes, title in ((losses, "loss"), (scores, "scores" if training_columns else "validation scores")):
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def plot_confusion(gold: Sequence[int], predicted: Sequence[int], labels: Sequence[str], path: Path) -> None:
    """A picture of how many texts of each class are given which class; colours are shares of the gold class.

    Without matplotlib, a warning says so. Without a font that has the names, classes go by their numbers, and a warning
    says which they are.

    Args:
        gold: ids into `labels`.
        predicted: likewise.
    """
    if not _can_plot(path):
        return
    from matplotlib.figure import Figure

    counts = confusion_matrix(gold, predicted, labels=range(len(labels)))
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    font = _font_with("".join(labels))
    names = list(labels) if font else [str(i) for i in range(len(labels))]
    figure = Figure(figsize=(2 + 0.7 * len(labels), 1.5 + 0.7 * len(labels)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour)
    axes.set_xticks(range(len(labels)), names, fontfamily=font, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), names, fontfamily=font)
    axes.set(xlabel="predicted", ylabel="gold" if font else "gold (classes by number: id2label in config.json)")
    figure.savefig(path, dpi=120)
    if font is None:
        key = ", ".join(f"{i} {label}" for i, label in enumerate(labels))
        logger.warning("%s: no installed font has the names of the classes, they are numbered: %s", path.name, key)


def _can_plot(path: Path) -> bool:
    if find_spec("matplotlib") is None:
        logger.warning("no %s: pictures need matplotlib, pip install bilstm-crf-hf[plot]", path.name)
        return False
    return True


def _font_with(text: str) -> str | None:
    """An installed font that has all the characters: matplotlib's own if it does."""
    from matplotlib.font_manager import fontManager, get_font

    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name != "DejaVu Sans", entry.name)):
        # Last Resort, which matplotlib brings along, has a box for every character.
        if "Last Resort" not in entry.name and all(map(get_font(entry.fname).get_char_index, map(ord, text))):
            return entry.name
    return None


def _plot_columns(axes, log_history: list[dict[str, Any]], columns: dict[str, str]) -> None:
    for width, (key, name) in zip(range(len(columns), 0, -1), columns.items()):  # equal curves show one on the other
        points = [(entry["epoch"], entry[key]) for entry in log_history if key in entry]
        axes.plot(*zip(*points, strict=True), marker="o", linewidth=width, markersize=3 + 2 * width, label=name)
