"""Pictures of training, confusions and calibration as PNG files; without matplotlib a warning takes their place."""

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from ..utils.files import write_atomically
from .calibration import Bin
from .markdown import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


def plot_training(
    log_history: list[dict[str, Any]], path: Path, columns: Mapping[str, str], training_columns: Mapping[str, str]
) -> None:
    """Plot the losses and scores in `trainer.state.log_history` by epoch.

    Args:
        columns: names of validation scores, by their keys without `eval_`.
        training_columns: names of scores on the training set, by their keys.
    """
    if (figure := _new_figure(path, 10, 4)) is None:
        return
    losses, scores = figure.subplots(1, 2)
    _plot_columns(losses, log_history, {"loss": "training", "eval_loss": "validation"})
    _plot_columns(scores, log_history, {**training_columns, **{f"eval_{key}": name for key, name in columns.items()}})
    for axes, title in ((losses, "loss"), (scores, "scores" if training_columns else "validation scores")):
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    _save(figure, path)


def plot_confusion(gold: Sequence[int], predicted: Sequence[int], labels: Sequence[str], path: Path) -> None:
    """Plot the number of texts of each pair of a gold and a predicted class; colours are shares of the gold class.

    Without a font that has the characters of `labels`, classes are numbered, and a warning lists the numbers. `gold`
    and `predicted` hold ids into `labels`.
    """
    if (figure := _new_figure(path, 2 + 0.7 * len(labels), 1.5 + 0.7 * len(labels))) is None:
        return
    counts, shares = (
        confusion_matrix(gold, predicted, labels=range(len(labels)), normalize=mode) for mode in (None, "true")
    )
    font = _find_font("".join(labels))
    axes = figure.subplots()
    display = ConfusionMatrixDisplay(shares, display_labels=labels if font else None)
    display.plot(ax=axes, cmap="Blues", colorbar=False, im_kw={"vmin": 0, "vmax": 1})
    for text, count in zip(display.text_.flat, counts.flat, strict=True):
        text.set_text(count)
    axes.set(xlabel="predicted", ylabel="gold" if font else "gold (classes by number: id2label in config.json)")
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(fontfamily=font, parse_math=False)
    for label in axes.get_xticklabels():
        label.set(rotation=45, ha="right", rotation_mode="anchor")
    _save(figure, path)
    if font is None:
        key = ", ".join(f"{i} {one_line(label)}" for i, label in enumerate(labels))
        logger.warning("%s: no installed font has the names of the classes, they are numbered: %s", path.name, key)


def plot_reliability(bins: Sequence[Bin], path: Path) -> None:
    """Plot a reliability diagram: the precision of the entities by their score, and the number of entities by bin."""
    if (figure := _new_figure(path, 6, 6.5)) is None:
        return
    precision, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    display = CalibrationDisplay([part.precision for part in bins], [part.mean_score for part in bins], None)
    display.plot(ax=precision, color="#0072B2", label="entities of a bin")
    precision.set(title="Reliability of the scores", xlabel="", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    widths = [part.high - part.low for part in bins]
    lows, heights = [part.low for part in bins], [part.count for part in bins]
    bars = counts.bar(lows, heights, widths, align="edge", color="#999999", edgecolor="w")
    counts.bar_label(bars, fmt="{:,.0f}")
    counts.set(xlabel="score", ylabel="entities")
    counts.margins(y=0.2)
    for axes in (precision, counts):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    _save(figure, path)


def _new_figure(path: Path, width: float, height: float) -> "Figure | None":
    """Return a figure with a size in inches; without matplotlib, log a warning that names the file, and return None."""
    if find_spec("matplotlib") is None:
        logger.warning("no %s: pictures need matplotlib, pip install bilstm-crf-hf[plot]", path.name)
        return None
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _find_font(text: str) -> str | None:
    """Return the name of an installed font that has all characters of `text`, preferably DejaVu Sans."""
    from matplotlib.font_manager import fontManager, get_font

    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name != "DejaVu Sans", entry.name)):
        # matplotlib's font Last Resort shows a box for every character.
        if "Last Resort" not in entry.name and all(map(get_font(entry.fname).get_char_index, map(ord, text))):
            return entry.name
    return None


def _plot_columns(axes: "Axes", log_history: list[dict[str, Any]], columns: Mapping[str, str]) -> None:
    """Plot entries of the log by epoch, later ones in thinner lines, so that equal curves stay visible."""
    for width, (key, name) in zip(range(len(columns), 0, -1), columns.items()):
        points = [(entry["epoch"], entry[key]) for entry in log_history if key in entry]
        axes.plot(*zip(*points, strict=True), marker="o", linewidth=width, markersize=3 + 2 * width, label=name)
