"""Text and tables in Markdown, and the templates of reports."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

Rows = list[dict[str, Any]]
"""The rows of a table: values, or `Cell`s, by the headings of their columns."""


class Cell(NamedTuple):
    """A value of a table with its text in Markdown."""

    value: Any
    text: str


def formatted(value: Any, spec: str) -> Cell:
    """Return a cell whose text is the value in the format `spec`, such as `.1f`."""
    return Cell(value, format(value, spec))


def values_of(rows: Rows) -> Rows:
    """Return the rows with the values of their cells."""
    return [{name: cell.value if isinstance(cell, Cell) else cell for name, cell in row.items()} for row in rows]


def escape_markdown(text: str) -> str:
    """Escape characters with a meaning in Markdown, and put the text on one line."""
    return re.sub(r"([\\`*_<>\[\]&|~#$])", r"\\\1", " ".join(text.split()))


def markdown_table(rows: Rows, decimals: int = 4) -> str:
    """Return one or more rows as a table in Markdown, columns of numbers aligned right."""
    aligned = ["---" if isinstance(value, str) else "---:" for value in rows[0].values()]
    lines = [[escape_markdown(str(name)) for name in rows[0]], aligned]
    lines += [[_text(value, decimals) for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any, decimals: int) -> str:
    if value is None:
        return "–"
    if isinstance(value, Cell):
        return value.text
    if isinstance(value, float):
        return f"{value:,.{decimals}f}"
    return f"{value:,}" if isinstance(value, int) else escape_markdown(str(value))


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {
    "escape_markdown": escape_markdown,
    "number": format,
    "percent": lambda share: f"{100 * share:.1f} %",
    "table": markdown_table,
}


def render_template(name: str, **values: Any) -> str:
    """Render a template in the folder of this module, whose filters include the functions above."""
    return _TEMPLATES.get_template(name).render(values)
