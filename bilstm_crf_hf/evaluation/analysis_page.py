"""An analysis to read: Markdown, with all numbers beside it as JSON, and the reliability diagram."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.files import write_atomically
from .analysis import Analysis
from .calibration import Bin
from .comparison import ERROR_CLASSES
from .markdown import escape_markdown, markdown_table
from .runs import plot_reliability

PICTURE = "reliability.png"
CONFUSIONS = 10
"""Confusions that the report shows, the most frequent ones; the JSON file has all."""


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


FORMATS = {"coverage": percent, "score from": "{:g}".format}


def write_analysis(folder: Path, analysis: Analysis, model: str, sentences: int = 20) -> dict[str, Any]:
    """Writes analysis.md, analysis.json and, with matplotlib, reliability.png to a folder; returns the numbers.

    Args:
        model: what the report calls the model.
        sentences: how many are quoted for each class of errors, and of the probable errors in gold. With 0, no file
            has a text of the data.
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
    """The report of `Analysis.numbers`."""
    parts = [f"# What {escape_markdown(Path(numbers['model']).name)} gets wrong", _verdict(numbers)]
    parts += _on_scores(numbers["calibration"], picture)
    parts += _on_errors(numbers)
    parts += _on_gold(numbers, sentences)
    return "\n\n".join(parts) + "\n"


def _verdict(numbers: dict[str, Any]) -> str:
    """The analysis in a few lines."""
    scores, trust = numbers["scores"], numbers["calibration"]
    difference = trust["mean score"] - trust["precision"]
    sure = trust["thresholds"][-1]
    lines = [
        f"{numbers['sentences']:,} sentences with {scores['gold']:,} entities: F1 **{scores['F1']:.4f}**, precision "
        f"{scores['precision']:.4f}, recall {scores['recall'] or 0:.4f}.\n",
        f"- Scores are {abs(difference):.3f} too {'high' if difference > 0 else 'low'} on average; the expected "
        f"calibration error is {trust['ECE']:.3f}.",
    ]
    if sure["entities"]:
        lines.append(
            f"- {percent(sure['coverage'])} of the entities found have a score of {sure['score from']:g} or more, and "
            f"{percent(sure['precision'])} of these are right."
        )
    total = numbers["errors"][-1]
    if errors := sum(total[kind] for kind in ERROR_CLASSES):
        kinds = sorted(ERROR_CLASSES, key=lambda kind: -total[kind])
        lines.append(f"- {errors:,} errors: {', '.join(f'{percent(total[kind] / errors)} {kind}' for kind in kinds)}.")
    lines.append(
        f"- {len(numbers['probable gold errors']):,} entities are not in gold, but have a score of "
        f"{numbers['gold_error_score']:g} or more: there gold may be wrong."
    )
    return "\n".join(lines)


def _on_scores(trust: dict[str, Any], picture: bool) -> list[str]:
    return [
        "## Can the scores be trusted?",
        "The score of a found entity is, with a CRF, the exact probability that there is just this entity. It is right "
        "if gold has the same one, type and both ends. Scores are true if the entities of each bin are right as often "
        "as their mean score says. Entities that are missed have no score.",
        *([f"![Precision of entities by their score]({PICTURE})"] if picture else []),
        markdown_table([_bin_row(part) for part in trust["bins"]], FORMATS),
        f"Expected calibration error (ECE) over these bins {trust['ECE']:.4f}, over as many of equal mass "
        f"{trust['ECE, equal mass']:.4f}; Brier score {trust['Brier score']:.4f} (0 is best).",
        "If only entities from some score on are kept (coverage is the share of the found ones that is left):",
        markdown_table(trust["thresholds"], FORMATS),
        "By the type found:",
        markdown_table(trust["types"], FORMATS),
    ]


def _bin_row(part: dict[str, Any]) -> dict[str, Any]:
    return {
        "score": f"{part['low']:.2f} – {part['high']:.2f}",
        "entities": part["count"],
        "mean score": part["mean_score"],
        "precision": part["precision"],
    }


def _on_errors(numbers: dict[str, Any]) -> list[str]:
    meanings = "\n".join(f"- {kind}: {meaning}" for kind, meaning in ERROR_CLASSES.items())
    parts = [
        "## What is wrong, and where?",
        "Errors by the gold type, invented ones by the type found. Each entity is in one error at most:",
        meanings,
        markdown_table(numbers["errors"]),
        "Scores by type:",
        markdown_table(numbers["types"], FORMATS),
    ]
    if numbers["confusions"]:
        parts += ["The types that are taken for each other most:", markdown_table(numbers["confusions"][:CONFUSIONS])]
    parts += ["Scores by the length of the entity in characters:", markdown_table(numbers["lengths"], FORMATS)]
    if numbers["training"]:
        parts += [
            "Scores by whether an entity with the same text, of any type, is in the training data:",
            markdown_table(numbers["training"], FORMATS),
        ]
    for kind, rows in numbers["examples"].items():
        if rows:
            count = numbers["errors"][-1][kind]
            parts.append(_unfolding(f"{kind}: {len(rows)} of {count:,}", [_quoted(row) for row in rows]))
    return parts


def _on_gold(numbers: dict[str, Any], sentences: int) -> list[str]:
    rows = numbers["probable gold errors"]
    parts = [
        "## Where may gold be wrong?",
        f"{len(rows):,} found entities have a score of {numbers['gold_error_score']:g} or more, but are not in gold: "
        "either the model is sure of something wrong, or the label is. They are for a person to decide on, and all in "
        "`analysis.json`, the surest first. Rows are counted from 0, sentences without text left out.",
    ]
    shown = rows[:sentences]
    if shown:
        lines = [f"{_quoted(row)} ({row['error']}, score {row['score']:.5f})" for row in shown]
        parts.append(_unfolding(f"the surest {len(shown)} of {len(rows):,}", lines))
    return parts


def _unfolding(summary: str, lines: Sequence[str]) -> str:
    items = "\n".join(f"- {line}" for line in lines)
    return f"<details>\n<summary>{summary}</summary>\n\n{items}\n\n</details>"


def _quoted(row: dict[str, Any]) -> str:
    """Both readings of a sentence on two lines; a reading without an entity is not the sentence again."""
    gold, predicted = (
        escape_markdown(row[f"{side} text"]) if row[side] else "no entity here" for side in ("gold", "predicted")
    )
    return f"row {row['row']}, gold: {gold}  \n  found: {predicted}"
