"""The report of an analysis: Markdown, all numbers as JSON, and the reliability diagram."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.files import write_atomically
from .analysis import Analysis
from .calibration import Bin
from .errors import ERROR_CLASSES
from .markdown import Cell, escape_markdown, formatted, markdown_table
from .plots import plot_reliability

PICTURE = "reliability.png"
CONFUSIONS = 10
"""Number of confusions in the report, the most frequent ones; the JSON file has all."""


def percent(share: float) -> str:
    """Return a share in percent, with one decimal."""
    return f"{100 * share:.1f} %"


def write_analysis(folder: Path, analysis: Analysis, model: str, sentences: int = 20) -> dict[str, Any]:
    """Write analysis.md, analysis.json and, with matplotlib, reliability.png to a folder.

    Args:
        folder: the folder.
        analysis: the analysis.
        model: name of the model in the report.
        sentences: number of sentences to quote for each kind of error, and of probable errors in gold. With 0, no file
            has a text of the data.

    Returns:
        The content of analysis.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {"model": model} | analysis.numbers(sentences)
    folder.joinpath(PICTURE).unlink(missing_ok=True)  # of an earlier report, if pictures cannot be drawn any more
    plot_reliability([Bin(**part) for part in numbers["calibration"]["bins"]], folder / PICTURE)
    with write_atomically(folder / "analysis.json") as file:
        file.write(json.dumps(numbers, ensure_ascii=False, indent=2).encode())
    with write_atomically(folder / "analysis.md") as file:
        file.write(to_markdown(numbers, sentences, picture=folder.joinpath(PICTURE).exists()).encode())
    return numbers


def to_markdown(numbers: dict[str, Any], sentences: int, picture: bool) -> str:
    """Write the numbers of `Analysis.numbers` as a report in Markdown, with the reliability diagram if there is one."""
    parts = [f"# Analysis of {escape_markdown(Path(numbers['model']).name)}", _verdict(numbers)]
    parts += _on_scores(numbers["calibration"], picture)
    parts += _on_errors(numbers)
    parts += _on_gold(numbers, sentences)
    return "\n\n".join(parts) + "\n"


def _verdict(numbers: dict[str, Any]) -> str:
    """Return the results in a few lines."""
    scores, trust = numbers["scores"], numbers["calibration"]
    difference = trust["mean score"] - trust["precision"]
    sure = trust["thresholds"][-1]
    lines = [
        f"{numbers['sentences']:,} sentences with {scores['gold']:,} entities: F1 **{scores['F1']:.4f}**, precision "
        f"{scores['precision']:.4f}, recall {scores['recall'] or 0:.4f}.\n",
        f"- The scores are {abs(difference):.3f} too {'high' if difference > 0 else 'low'} on average; the expected "
        f"calibration error is {trust['ECE']:.3f}.",
    ]
    if sure["entities"]:
        lines.append(
            f"- {percent(sure['coverage'])} of the predicted entities have a score of {sure['score from']:g} or more; "
            f"{percent(sure['precision'])} of these are right."
        )
    total = numbers["errors"][-1]
    if errors := sum(total[kind] for kind in ERROR_CLASSES):
        kinds = sorted(ERROR_CLASSES, key=lambda kind: -total[kind])
        lines.append(
            f"- There are {errors:,} errors: {', '.join(f'{percent(total[kind] / errors)} {kind}' for kind in kinds)}."
        )
    lines.append(
        f"- {len(numbers['probable gold errors']):,} predicted entities have a score of "
        f"{numbers['gold_error_score']:g} or more, but are not in gold, which may be wrong there."
    )
    return "\n".join(lines)


def _on_scores(trust: dict[str, Any], picture: bool) -> list[str]:
    return [
        "## Calibration of the scores",
        "With a CRF, the score of an entity is the exact probability of this entity with its type and both ends. The "
        "entity is right if gold has the same one. Scores are calibrated if the share of right entities in each bin "
        "equals the mean score. Missed entities have no score.",
        *([f"![Precision of entities by their score]({PICTURE})"] if picture else []),
        markdown_table([_bin_row(part) for part in trust["bins"]]),
        f"The expected calibration error (ECE) is {trust['ECE']:.4f} over these bins, and "
        f"{trust['ECE, equal mass']:.4f} over as many bins of equal mass. The Brier score is "
        f"{trust['Brier score']:.4f} (0 is best).",
        "Entities with at least a score (coverage is their share of all predicted entities):",
        markdown_table([_threshold_row(row) for row in trust["thresholds"]]),
        "Calibration by predicted type:",
        markdown_table(trust["types"]),
    ]


def _bin_row(part: dict[str, Any]) -> dict[str, Any]:
    return {
        "score": f"{part['low']:.2f} – {part['high']:.2f}",
        "entities": part["count"],
        "mean score": part["mean_score"],
        "precision": part["precision"],
    }


def _threshold_row(row: dict[str, Any]) -> dict[str, Any]:
    coverage = row["coverage"]
    return row | {"score from": formatted(row["score from"], "g"), "coverage": Cell(coverage, percent(coverage))}


def _on_errors(numbers: dict[str, Any]) -> list[str]:
    meanings = "\n".join(f"- {kind}: {meaning}" for kind, meaning in ERROR_CLASSES.items())
    parts = [
        "## Errors",
        "Errors are counted by gold type, invented entities by their predicted type. Each entity is in one error at "
        "most:",
        meanings,
        markdown_table(numbers["errors"]),
        "Scores by type:",
        markdown_table(numbers["types"]),
    ]
    if numbers["confusions"]:
        parts += ["The most frequent confusions of types:", markdown_table(numbers["confusions"][:CONFUSIONS])]
    parts += ["Scores by the length of the entity in characters:", markdown_table(numbers["lengths"])]
    if numbers["training"]:
        parts += [
            "Scores by whether the training data have an entity with the same text, of any type:",
            markdown_table(numbers["training"]),
        ]
    for kind, rows in numbers["examples"].items():
        if rows:
            count = numbers["errors"][-1][kind]
            parts.append(_unfolding(f"{kind}: {len(rows)} of {count:,}", [_quoted(row) for row in rows]))
    return parts


def _on_gold(numbers: dict[str, Any], sentences: int) -> list[str]:
    rows = numbers["probable gold errors"]
    parts = [
        "## Probable errors in gold",
        f"{len(rows):,} predicted entities have a score of {numbers['gold_error_score']:g} or more, but are not in "
        "gold: either the prediction or the label is wrong, which a person has to decide. `analysis.json` has all of "
        "them, the highest score first. Rows are counted from 0; sentences without text are not counted.",
    ]
    shown = rows[:sentences]
    if shown:
        lines = [f"{_quoted(row)} ({row['error']}, score {row['score']:.5f})" for row in shown]
        parts.append(_unfolding(f"the {len(shown)} with the highest scores of {len(rows):,}", lines))
    return parts


def _unfolding(summary: str, lines: Sequence[str]) -> str:
    items = "\n".join(f"- {line}" for line in lines)
    return f"<details>\n<summary>{summary}</summary>\n\n{items}\n\n</details>"


def _quoted(row: dict[str, Any]) -> str:
    """Return the gold and the predicted entities of a row on two lines; a side without entities is not quoted."""
    gold, predicted = (
        escape_markdown(row[f"{side} text"]) if row[side] else "no entity here" for side in ("gold", "predicted")
    )
    return f"row {row['row']}, gold: {gold}  \n  predicted: {predicted}"
