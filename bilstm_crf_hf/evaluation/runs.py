"""Summaries and pictures of training runs."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import confusion_matrix
from transformers.modelcard import extract_hyperparameters_from_trainer

from ..utils.environment import hardware, versions
from ..utils.files import write_atomically
from .calibration import Bin

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)

PREDICTIONS = "validation_predictions.jsonl"
"""The file in a run's folder that `comparison` reads sentences from."""

RUN = "training_run.json"
"""The file in a run's folder that says how it came about; it names files as the user named them, and stays local."""


def save_run(
    trainer: "Trainer",
    settings: Sequence[Any],
    results: dict[str, Any],
    rows: Iterable[dict[str, Any]],
    columns: dict[str, str],
    training_columns: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Leaves in the output folder the model with its tokenizer, predictions, curves, `training_run.json` with what it
    was trained on and how, and last `all_results.json`: a folder with that file is a finished run.

    Args:
        settings: the argument dataclasses, beside those of the training, that the recipe was given.
        results: what goes into `all_results.json`.
        rows: see `save_predictions`.
        columns, training_columns: see `plot_training`.
    """
    folder = Path(trainer.args.output_dir)
    trainer.model.save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)
    facts = {
        "arguments": {name: value for part in settings for name, value in asdict(part).items()},
        "hyperparameters": training_hyperparameters(trainer),
        "hardware": hardware(trainer.args.device),
        "versions": versions(),
    }
    with write_atomically(folder / RUN) as file:
        file.write(json.dumps(facts, ensure_ascii=False, indent=2).encode())
    save_predictions(folder / PREDICTIONS, rows)
    plot_training(trainer.state.log_history, folder / "training.png", columns, training_columns)
    trainer.save_metrics("all", results, combined=False)


def save_predictions(path: Path | str, rows: Iterable[dict[str, Any]]) -> None:
    """Writes a JSON object a line, one a validation example, to the file `path`; it appears only once it is whole.

    Args:
        rows: of entities, `{"text": str, "gold": [[start, end, label], ...], "predicted": [[start, end, label], ...]}`;
            of classes, `{"text": str, "gold": label, "predicted": label}`.
    """
    with write_atomically(Path(path)) as file:
        file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in rows)


def training_hyperparameters(trainer: "Trainer") -> dict[str, Any]:
    """Those that the cards of `Trainer` list, and the ones it leaves out or does not know."""
    arguments = trainer.args
    names = ("weight_decay", "max_grad_norm", "bf16", "learning_rate_decay", "ema_decay")
    names += tuple(f"{part}_learning_rate" for part in ("head", "crf", "embedding"))
    listed = extract_hyperparameters_from_trainer(trainer)
    own = {name: getattr(arguments, name, None) for name in names}
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # Accelerate wraps it
    listed["optimizer"] = f"{type(optimizer).__name__}, betas {arguments.adam_beta1:g} and {arguments.adam_beta2:g}"
    if own["learning_rate_decay"]:
        listed["lr_scheduler_type"] = "exponential, an epoch a step"
    return listed | {name: value for name, value in own.items() if value}


def training_summary(
    log_history: list[dict[str, Any]], epoch_seconds: list[float], metric: str = "f1"
) -> dict[str, float]:
    """Best and mean of a validation score over the epochs, and how long training took, in all and by the median epoch.

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
        "seconds_per_epoch": median(epoch_seconds) if epoch_seconds else 0.0,
    }


def print_scores(results: dict[str, float], columns: dict[str, str], metric: str, output_dir: str) -> None:
    """Prints what `training_summary` made of the run, and the scores `columns` of the model that was kept."""
    print(
        f"\nbest {columns[metric]} {results[f'best_{metric}']:.4f} in epoch {results['best_epoch']:g}, "
        f"mean {results[f'mean_{metric}']:.4f}, {results['train_seconds']:.0f} s for {results['epochs']} epochs of "
        f"training, {results['seconds_per_epoch']:.1f} s an epoch"
    )
    print("best model:", ", ".join(f"{name} {results[f'eval_{key}']:.4f}" for key, name in columns.items()))
    print(f"saved in {output_dir}, for from_pretrained(..., trust_remote_code=True)")


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


def plot_reliability(bins: Sequence[Bin], path: Path) -> None:
    """A reliability diagram: the precision of the entities of each bin against their score, and how many there are.

    Without matplotlib, a warning says so.

    Args:
        bins: of equal width, see `calibration.calibration_bins`.
    """
    if not _can_plot(path):
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6.5), layout="constrained")
    precision, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    places, widths = [part.low for part in bins], [part.high - part.low for part in bins]
    bars = {"width": widths, "align": "edge", "edgecolor": "white"}
    precision.bar(places, [part.precision for part in bins], color="#0072B2", label="precision of the bin", **bars)
    precision.plot([0, 1], [0, 1], color="#1f2328", linestyle="--", label="true scores")
    means = [part.mean_score for part in bins], [part.precision for part in bins]
    precision.plot(*means, "o", color="#D55E00", label="at its mean score")
    precision.set(title="Are the scores true?", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    precision.legend(loc="upper left")
    counts.bar(places, [part.count for part in bins], color="#999999", **bars)
    for part in bins:
        counts.annotate(f"{part.count:,}", ((part.low + part.high) / 2, part.count), ha="center", va="bottom")
    counts.set(xlabel="score", ylabel="entities")
    counts.margins(y=0.2)
    for axes in (precision, counts):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=120)


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
