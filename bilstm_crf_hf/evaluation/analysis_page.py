"""The report of an analysis: Markdown, all numbers as JSON, and the reliability diagram."""

from pathlib import Path
from typing import Any

from ..utils.files import write_atomically, write_json
from .analysis import Analysis
from .calibration import Bin
from .errors import ERROR_KINDS
from .markdown import render_template
from .plots import plot_reliability

PICTURE = "reliability.png"
CONFUSIONS = 10
"""Number of confusions in the report, the most frequent ones; the JSON file has all."""


def write_analysis(folder: Path, analysis: Analysis, model: str, sentences: int = 20) -> dict[str, Any]:
    """Write analysis.md, analysis.json and, with matplotlib, reliability.png; return the content of analysis.json.

    The reports quote up to `sentences` sentences for each kind of error, and as many probable errors in gold. With 0,
    no file has a text of the data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {"model": model} | analysis.numbers(sentences)
    folder.joinpath(PICTURE).unlink(missing_ok=True)  # of an earlier report, if pictures cannot be drawn any more
    plot_reliability([Bin(**part) for part in numbers["calibration"]["bins"]], folder / PICTURE)
    counts = {kind: numbers["errors"][-1][kind] for kind in ERROR_KINDS}
    markdown = render_template(
        "evaluation/analysis_template.md",
        numbers=numbers,
        model=Path(model).name,
        trust=numbers["calibration"],
        error_counts=sorted(counts.items(), key=lambda pair: -pair[1]),
        error_kinds=ERROR_KINDS,
        confusions=numbers["confusions"][:CONFUSIONS],
        gold_errors=numbers["probable gold errors"],
        quoted=numbers["probable gold errors"][:sentences],
        picture=PICTURE if folder.joinpath(PICTURE).exists() else None,
    )
    write_json(folder / "analysis.json", numbers)
    with write_atomically(folder / "analysis.md") as file:
        file.write(markdown.encode())
    return numbers
