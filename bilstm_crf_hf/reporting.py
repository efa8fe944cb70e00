"""Summaries and pictures of training runs."""

import logging
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

logger = logging.getLogger(__name__)


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


def plot_training(log_history: list[dict[str, Any]], path: Path, columns: dict[str, str]) -> None:
    """A picture of the losses and of the scores named in `columns` by epoch. Without matplotlib, a warning says so."""
    if find_spec("matplotlib") is None:
        logger.warning("no %s: pictures need matplotlib, pip install bilstm-crf-hf[plot]", path.name)
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    _plot_columns(losses, log_history, {"loss": "training", "eval_loss": "validation"})
    _plot_columns(scores, log_history, {f"eval_{key}": name for key, name in columns.items()})
    for axes, title in ((losses, "loss"), (scores, "validation scores")):
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def _plot_columns(axes, log_history: list[dict[str, Any]], columns: dict[str, str]) -> None:
    for width, (key, name) in zip(range(len(columns), 0, -1), columns.items()):  # equal curves show one on the other
        points = [(entry["epoch"], entry[key]) for entry in log_history if key in entry]
        axes.plot(*zip(*points, strict=True), marker="o", linewidth=width, markersize=3 + 2 * width, label=name)
