"""The report of a comparison: pictures, Markdown, and one page of HTML that needs neither network nor JavaScript."""

import csv
import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from io import StringIO
from itertools import cycle, permutations
from pathlib import Path
from typing import Any

import matplotlib
from markdown_it import MarkdownIt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..utils.files import write_atomically
from .comparison import RESAMPLES, Speed, System, labels_of_runs, tables_of
from .markdown import Rows, escape_markdown, markdown_table, values_of
from .runs import Run
from .tasks import TAGGING, Task

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""The colours of Okabe and Ito that show on white and on black; people with colour-blindness can tell them apart."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, PAPER = "#1f2328", "#ffffff"
STYLE = {
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
    task = systems[0].task
    score, label = task.main_metric_name, task.label
    pictures: dict[str, tuple[str, Callable[[Axes], None]]] = {
        "score_by_epoch.svg": (f"{score} by epoch", lambda axes: _draw_epochs(axes, systems)),
        "score_by_time.svg": (f"{score} against training time", lambda axes: _draw_times(axes, systems)),
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


def _styles(systems: Sequence[System]) -> list[tuple[System, dict[str, Any]]]:
    """Return each system with its colour, marker and label."""
    looks = zip(systems, cycle(COLOURS), cycle(MARKERS))
    return [
        (system, {"color": colour, "marker": marker, "label": _plain(system.name)}) for system, colour, marker in looks
    ]


def _plain(text: str) -> str:
    """Remove what matplotlib would read as mathematics, or as a line without a legend."""
    return text.replace("$", r"\$").lstrip("_")


def _draw_curves(axes: Axes, systems: Sequence[System], seconds_per_epoch: Callable[[Run], float]) -> None:
    for system, style in _styles(systems):
        for run in system.runs:
            epochs, scores = zip(*run.curve, strict=True)
            axes.plot([epoch * seconds_per_epoch(run) for epoch in epochs], scores, **style, markersize=5, alpha=0.85)
    axes.set_ylabel(systems[0].task.main_metric_name)


def _draw_epochs(axes: Axes, systems: Sequence[System]) -> None:
    _draw_curves(axes, systems, lambda run: 1)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_times(axes: Axes, systems: Sequence[System]) -> None:
    _draw_curves(axes, systems, lambda run: run.results["seconds_per_epoch"])
    _scale(axes, "training time in seconds", [run.seconds for system in systems for run in system.runs])


def _draw_labels(axes: Axes, systems: Sequence[System]) -> None:
    labels = labels_of_runs(systems)
    for number, (system, style) in enumerate(_styles(systems)):
        shift = (number - (len(systems) - 1) / 2) * min(0.16, 0.7 / len(systems))
        places = [place + shift for place in range(len(labels))]
        names = [f"{label}_f1" for label in labels]
        deviations = [system.deviation(name) for name in names] if len(system.runs) > 1 else None
        axes.errorbar(places, [system.mean(name) for name in names], deviations, linestyle="none", **style)
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


# Markdown


def to_markdown(
    systems: Sequence[System],
    tables: dict[str, Rows],
    pictures: dict[str, tuple[str, str]],
    conditions: dict[str, Any],
    sentences: int,
) -> str:
    """Write the report in Markdown, with the tables of `comparison.tables_of` and the pictures of `draw_pictures`."""
    task = systems[0].task
    images = "\n".join(f"![{title}]({name})" for name, (title, _) in pictures.items())
    sections = [
        f"# Comparison: {task.title}",
        _verdict(systems, tables),
        markdown_table(tables["systems"]),
        _note_on_systems(task),
        images,
    ]
    if tables["bootstrap"]:
        sections += [
            "## Significance of the differences",
            f"A paired bootstrap draws {RESAMPLES:,} resamples of the sentences, the same ones for both systems. The "
            f"table has the difference of {task.main_metric_name} (counts added up over the seeds of a system), the "
            "interval that holds 95 % of the resampled differences, and p, the share of resamples in which the sign "
            "turns. It does not include the spread over seeds.",
            markdown_table(tables["bootstrap"]),
        ]
    sections += [f"## F1 by {task.label}", "The scores are means over the seeds.", markdown_table(tables["labels"])]
    sections += ["## Errors", _note_on_errors(task), markdown_table(tables["errors"], decimals=1)]
    if differences := tables["differences"]:
        sections += ["## Sentences on which two systems differ", *_differences(systems, differences, sentences)]
    sections += [
        "## Runs",
        markdown_table(tables["runs"]),
        "## How speed was measured",
        "\n".join(f"- {name}: {escape_markdown(str(value))}" for name, value in conditions.items()),
    ]
    return "\n\n".join(sections) + "\n"


def _verdict(systems: Sequence[System], tables: dict[str, Rows]) -> str:
    """Return the result of the comparison in a few sentences."""
    task, (texts, gold, _) = systems[0].task, systems[0].best.predictions
    entities = f" with {sum(map(len, gold)):,} entities" if task is TAGGING else ""
    text = f"The systems are compared on {len(texts):,} validation sentences{entities}. "
    text += f"**{escape_markdown(systems[0].name)}** has {task.main_metric_name} {systems[0].score:.4f}"
    if not tables["bootstrap"]:
        return f"{text}."
    row = tables["bootstrap"][0]  # the systems come best first
    low, high = row["95 % from"], row["to"]
    turn = "is unlikely to" if low > 0 else "may"
    text += (
        f", {systems[0].score - systems[1].score:.4f} above {escape_markdown(systems[1].name)}. On other sentences the "
        f"sign {turn} turn (95 % interval {low:+.4f} to {high:+.4f})"
    )
    if single := [escape_markdown(system.name) for system in systems[:2] if len(system.runs) == 1]:
        return f"{text}; with other seeds it may, since there is only one run of {' and of '.join(single)}."
    deviations = " and ".join(f"{system.deviation(task.main_metric):.4f}" for system in systems[:2])
    return f"{text}; the standard deviations over the seeds are {deviations}."


def _note_on_systems(task: Task) -> str:
    scored = "on the characters of the text, strict: type and both ends" if task is TAGGING else "mean over the classes"
    return (
        f"The table has the {task.main_metric_name} of the saved models ({scored}). Mean and standard deviation "
        "(n − 1) are taken over the runs, which differ in their seeds. Times are means over the runs, without "
        "evaluation. Speed is that of the `pipeline` of the best run on the CPU; the end of the page describes the "
        "measurement. The pictures have one line per run; bars are standard deviations."
    )


def _note_on_errors(task: Task) -> str:
    if task is TAGGING:
        return (
            "Each gold and each predicted entity is counted once. An error of boundary or type is a pair of the two; "
            "an entity without a counterpart is missed (gold) or invented (predicted). The numbers are means over the "
            "seeds."
        )
    return "The table has the most frequent confusions. The numbers are means over the seeds."


def _differences(systems: Sequence[System], rows: Rows, shown: int) -> list[str]:
    """Return an introduction, and a foldable section for each ordered pair of systems."""
    sections = [
        f"In these sentences, the best run of exactly one of two systems has everything right. Up to {shown} are shown "
        "for each pair and direction; `differences.csv` has all of them."
    ]
    for right, wrong in permutations([system.name for system in systems], 2):
        found = [row for row in rows if (row["right"], row["wrong"]) == (right, wrong)]
        if not found:
            continue
        lines = [f"<details>\n<summary>{escape(right)} right, {escape(wrong)} wrong: {len(found)}</summary>\n"]
        for row in found[:shown]:
            text, gold, predicted = (escape_markdown(row[name]) for name in ("text", "gold", "predicted"))
            if systems[0].task is TAGGING:
                lines.append(f"- right: {gold}  \n  {escape_markdown(wrong)}: {predicted}")
            else:
                lines.append(f"- {text}  \n  right: **{gold}**, {escape_markdown(wrong)}: **{predicted}**")
        sections.append("\n".join([*lines, "\n</details>"]))
    return sections


# The page

CSS = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --faint: #d0d7de; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #14181d; --faint: #3d444d; }
}
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.6 system-ui, "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans KR", "Noto Sans CJK KR", sans-serif;
  overflow-wrap: anywhere; word-break: keep-all; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid var(--faint); padding-bottom: .3rem; }
p, li { max-width: 46rem; }
table { display: block; width: max-content; max-width: 100%; overflow-x: auto; border-collapse: collapse;
  font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--faint); text-align: left; vertical-align: bottom; }
th { font-weight: 600; line-height: 1.3; min-width: 4rem; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
p:has(svg) { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); gap: 1.5rem;
  max-width: none; }
svg { width: 100%; height: auto; max-width: 37rem; }
summary { cursor: pointer; font-weight: 600; padding: .4rem 0; }
details li { margin: .6rem 0; }
@media print {
  :root { color-scheme: light; --ink: #000; --paper: #fff; --faint: #bbb; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  table { display: table; width: auto; font-size: 7.5pt; }
  th, td { padding: .2rem .3rem; }
  th { min-width: 0; }
  svg, tr, li { break-inside: avoid; }
  h2 { break-after: avoid; }
  p:has(svg) { grid-template-columns: 1fr 1fr; }
  details::details-content { content-visibility: visible; }
}
"""


def to_html(markdown: str, pictures: dict[str, tuple[str, str]]) -> str:
    """Convert the report to a page of HTML without other files; the pictures take the colours of the page."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.add_render_rule("image", lambda self, tokens, i, *_: _inline(*pictures[tokens[i].attrs["src"]]))
    title = escape(markdown.partition("\n")[0].lstrip("# "))
    body = parser.render(markdown)
    head = (
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{CSS}</style>"
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}</body>\n</html>\n'


def _inline(title: str, svg: str) -> str:
    """Return a picture as an element of a page: without its unused ids, in the colours of the page."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "none")
    referenced = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in referenced else "", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


# Files


def write_report(
    folder: Path, systems: Sequence[System], speeds: dict[str, Speed], conditions: dict[str, Any], sentences: int = 20
) -> list[Path]:
    """Write report.html, report.md, the tables as CSV and the pictures to a folder; return the files.

    Args:
        folder: the folder, which exists.
        systems: the systems, best first.
        speeds: speed of each system, by name.
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
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
