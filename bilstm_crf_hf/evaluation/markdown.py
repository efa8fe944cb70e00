"""Text and tables in Markdown."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

Rows = list[dict[str, Any]]
"""The rows of a table as dictionaries, whose keys are the headings."""

Format = Callable[[Any], str]
"""A function that writes a value in Markdown."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        heading: the heading.
        value: function that computes the value from the fields of an item.
        form: format of the values in Markdown; None for that of their type, see `markdown_table`.
    """

    heading: str
    value: Callable[..., Any]
    form: Format | None = None


class Table(NamedTuple):
    """A table with the Markdown formats of its columns by heading."""

    rows: Rows
    formats: Mapping[str, Format] = MappingProxyType({})

    @classmethod
    def of(cls, items: Iterable[tuple], columns: Sequence[Column]) -> "Table":
        """Return the table with one row per item."""
        rows = [{column.heading: column.value(*item) for column in columns} for item in items]
        return cls(rows, {column.heading: column.form for column in columns if column.form})


def escape_markdown(text: str) -> str:
    """Escape characters with a meaning in Markdown, and put the text on one line."""
    return re.sub(r"([\\`*_<>\[\]&|~#$])", r"\\\1", " ".join(text.split()))


def markdown_table(rows: Rows, formats: Mapping[str, Format] = MappingProxyType({}), decimals: int = 4) -> str:
    """Write a table in Markdown, columns of numbers aligned right.

    Args:
        rows: at least one row.
        formats: formats of columns, by their headings.
        decimals: decimals of fractions in columns without a format.
    """
    aligned = ["---" if isinstance(value, str) else "---:" for value in rows[0].values()]
    lines = [[escape_markdown(str(name)) for name in rows[0]], aligned]
    lines += [[_cell(value, formats.get(name), decimals) for name, value in row.items()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any, form: Format | None, decimals: int) -> str:
    if value is None:
        return "–"
    if form is not None:
        return form(value)
    if isinstance(value, float):
        return f"{value:,.{decimals}f}"
    return f"{value:,}" if isinstance(value, int) else escape_markdown(str(value))
