"""The report of a comparison: pictures, Markdown, and one page of HTML that needs neither network nor JavaScript."""

import csv
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from html import escape
from io import StringIO
from itertools import cycle, permutations
from pathlib import Path
from typing import Any

import matplotlib
from markdown_it import MarkdownIt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..utils.files import write_atomically
from .comparison import RESAMPLES, Speed, System, labels_of_runs, tables_of
from .markdown import Rows, escape_cell, one_line, render_template, values_of
from .tasks import TAGGING

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""The colours of Okabe and Ito that show on white and on black; people with colour-blindness can tell them apart."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, PAPER = "#1f2328", "#ffffff"
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "svg.fonttype": "none",  # text stays text, in a font that the reader has: Hangul needs none here
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.25,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}
"""The style of the pictures."""


# Pictures


def draw_pictures(systems: Sequence[System], speeds: dict[str, Speed]) -> dict[str, tuple[str, str]]:
    """Return title and SVG of the pictures of a report, by file name."""
    score, label = systems[0].task.main_metric_name, systems[0].task.label
    pictures: dict[str, tuple[str, Callable[[Axes], None]]] = {
        "score_by_epoch.svg": (f"{score} by epoch", lambda axes: _draw_curves(axes, systems, by_time=False)),
        "score_by_time.svg": (f"{score} against training time", lambda axes: _draw_curves(axes, systems, by_time=True)),
        f"score_by_{label.split()[-1]}.svg": (f"F1 by {label}", lambda axes: _draw_labels(axes, systems)),
        "score_by_speed.svg": (f"{score} against speed", lambda axes: _draw_speeds(axes, systems, speeds)),
    }
    return {name: (title, _picture(name, title, draw)) for name, (title, draw) in pictures.items()}


def _picture(name: str, title: str, draw: Callable[[Axes], None]) -> str:
    """Return a picture as SVG, with the legend below it, small enough to be read at the width of a phone."""
    file = StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # see STYLE
        figure = Figure(figsize=(5.6, 4), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.set_title(title, weight="bold")
        axes.grid()
        axes.set_axisbelow(True)
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        columns = 1 if max(map(len, handles)) > 24 else 2
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns, frameon=False)
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return file.getvalue()


def _styles(systems: Sequence[System]) -> Iterator[tuple[System, dict[str, Any]]]:
    """Yield each system with its colour, marker and label."""
    for system, colour, marker in zip(systems, cycle(COLOURS), cycle(MARKERS)):
        yield system, {"color": colour, "marker": marker, "label": _plain(system.name)}


def _plain(text: str) -> str:
    """Remove what matplotlib would read as mathematics, or as a line without a legend."""
    return one_line(text).replace("$", r"\$").lstrip("_")


def _draw_curves(axes: Axes, systems: Sequence[System], by_time: bool) -> None:
    for system, style in _styles(systems):
        for run in system.runs:
            epochs, scores = zip(*run.curve, strict=True)
            step = run.results["seconds_per_epoch"] if by_time else 1
            axes.plot([epoch * step for epoch in epochs], scores, **style, markersize=5, alpha=0.85)
    axes.set_ylabel(systems[0].task.main_metric_name)
    if by_time:
        _scale(axes, "training time in seconds", [run.seconds for system in systems for run in system.runs])
    else:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_labels(axes: Axes, systems: Sequence[System]) -> None:
    labels = labels_of_runs(systems)
    for number, (system, style) in enumerate(_styles(systems)):
        shift = (number - (len(systems) - 1) / 2) * min(0.16, 0.7 / len(systems))
        places = [place + shift for place in range(len(labels))]
        names = [f"{label}_f1" for label in labels]
        deviations = [deviation for name in names if (deviation := system.deviation(name)) is not None]
        axes.errorbar(places, [system.mean(name) for name in names], deviations or None, linestyle="none", **style)
    axes.set_xticks(range(len(labels)), [_plain(label) for label in labels], rotation=0 if len(labels) < 9 else 45)
    axes.set(xlabel=systems[0].task.label, ylabel="F1")


def _draw_speeds(axes: Axes, systems: Sequence[System], speeds: dict[str, Speed]) -> None:
    task = systems[0].task
    for system, style in _styles(systems):
        speed = speeds[system.name].sentences_per_second
        axes.errorbar(speed, system.score, system.deviation(task.main_metric), linestyle="none", markersize=9, **style)
    axes.set_ylabel(task.main_metric_name)
    axes.margins(0.15)
    _scale(axes, "sentences a second, CPU", [speed.sentences_per_second for speed in speeds.values()])


def _scale(axes: Axes, label: str, values: Sequence[float]) -> None:
    """Let the x axis begin at 0, or make it logarithmic if the values are far apart."""
    if max(values) > 10 * min(values):
        axes.set_xscale("log")
        label += " (log scale)"
    else:
        axes.set_xlim(0, 1.1 * max(values))
    axes.set_xlabel(label)


# Pages


def to_markdown(
    systems: Sequence[System],
    tables: dict[str, Rows],
    pictures: dict[str, tuple[str, str]],
    conditions: dict[str, Any],
    sentences: int,
) -> str:
    """Write the report in Markdown, with the tables of `comparison.tables_of` and the pictures of `draw_pictures`."""
    differences: dict[tuple[str, str], Rows] = {pair: [] for pair in permutations([s.name for s in systems], 2)}
    for row in tables["differences"]:
        differences[row["right"], row["wrong"]].append(row)
    return render_template(
        "evaluation/comparison_template.md",
        systems=systems,
        tables=tables,
        pictures=pictures,
        conditions=conditions,
        shown=sentences,
        is_tagging=systems[0].task is TAGGING,
        differences=differences,
        single_runs=[system.name for system in systems[:2] if len(system.runs) == 1],
        resamples=RESAMPLES,
    )


def to_html(markdown: str, pictures: dict[str, tuple[str, str]]) -> str:
    """Convert the report to a page of HTML without other files; the pictures take the colours of the page."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.add_render_rule("image", lambda self, tokens, i, *_: _inline(*pictures[tokens[i].attrs["src"]]))
    title = markdown.partition("\n")[0].lstrip("# ")
    return render_template("evaluation/comparison_template.html", title=title, body=Markup(parser.render(markdown)))


def _inline(title: str, svg: str) -> str:
    """Return a picture as an element of a page: without its unused ids, in the colours of the page."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "none")
    referenced = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in referenced else "", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def write_report(
    folder: Path, systems: Sequence[System], speeds: dict[str, Speed], conditions: dict[str, Any], sentences: int = 20
) -> list[Path]:
    """Write report.html, report.md, the tables as CSV and the pictures to an existing folder; return the files.

    Args:
        systems: the systems, best first.
        conditions: conditions of the measurement of `speeds`, by name.
        sentences: number of sentences to quote for each pair of systems and direction; `differences.csv` has all of
            them. With 0, no file quotes a sentence.
    """
    tables = tables_of(systems, speeds)
    if not sentences:
        tables["differences"].clear()
        folder.joinpath("differences.csv").unlink(missing_ok=True)  # of an earlier report
    pictures = draw_pictures(systems, speeds)
    markdown = to_markdown(systems, tables, pictures, conditions, sentences)
    files = {name: svg for name, (_, svg) in pictures.items()}
    files |= {f"{name}.csv": _csv(values_of(rows)) for name, rows in tables.items() if rows}
    files |= {"report.md": markdown, "report.html": to_html(markdown, pictures)}
    for name, content in files.items():
        with write_atomically(folder / name) as file:
            # Excel reads a CSV file without a byte order mark in the local encoding.
            file.write(content.encode("utf-8-sig" if name.endswith(".csv") else "utf-8"))
    return [folder / name for name in files]


def _csv(rows: Rows) -> str:
    file = StringIO()
    writer = csv.writer(file)  # with the line ends of RFC 4180, which also let it quote fields with either of them
    writer.writerows([escape_cell(value) for value in row] for row in (rows[0], *(row.values() for row in rows)))
    return file.getvalue()
