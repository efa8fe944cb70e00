"""Text and tables as Markdown."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Rows = list[dict[str, Any]]
"""A table: a dictionary a line, whose keys are the headings."""


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line; `<손흥민:PS>` would be taken for HTML."""
    return re.sub(r"([\\`*_<>\[\]&|~#$])", r"\\\1", " ".join(text.split()))


def markdown_table(
    rows: Rows, formats: Mapping[str, Callable[[Any], str]] = MappingProxyType({}), decimals: int = 4
) -> str:
    """A table whose columns of numbers are to the right.

    Args:
        formats: by heading, what makes Markdown of the values of a column.
        decimals: of fractions in columns without a format.
    """
    aligned = ["---" if isinstance(value, str) else "---:" for value in rows[0].values()]
    lines = [[escape_markdown(str(name)) for name in rows[0]], aligned]
    lines += [[_cell(value, formats.get(name), decimals) for name, value in row.items()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any, form: Callable[[Any], str] | None, decimals: int) -> str:
    if value is None:
        return "–"
    if form is not None:
        return form(value)
    if isinstance(value, float):
        return f"{value:,.{decimals}f}"
    return f"{value:,}" if isinstance(value, int) else escape_markdown(str(value))
