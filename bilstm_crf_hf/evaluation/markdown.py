"""Text, tables and templates in Markdown, HTML and CSV. Templates escape what they insert, unless it is `Markup`.

Labels, texts, file names and descriptions come from data and models of others: they are shown as they are, and never
become markup, links or scripts.
"""

import json
import re
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""Characters with which a formula of a spreadsheet begins."""
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")

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


def one_line(text: str) -> str:
    """Return a text on one line, with visible control characters: terminals obey them, and HTML does not allow some."""
    return _visible(" ".join(text.split()))


def _visible(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", lambda c: ascii(c[0])[1:-1], text)


def escape_markdown(text: str) -> Markup:
    """Escape characters with a meaning in Markdown, and put the text on one line."""
    text = re.sub(r"([\\`*_<>\[\]&|~#$@]|:(?=//)|(?<=\bwww)\.)", r"\\\1", one_line(text))  # also addresses as such
    return Markup(re.sub(r"^(\d*)([-+=]|(?<=\d)[.)](?= |$))", r"\1\\\2", text))  # at the start: lists and headings


def escape_html(text: str) -> Markup:
    """Escape characters with a meaning in HTML, and put the text on one line."""
    return Markup(escape(one_line(text)))


def escape_cell(value: Any) -> Any:
    """Return a value for a cell of a CSV file, in which spreadsheets do not take a text for a formula.

    They take one that begins with a character of `FORMULA`; see OWASP, "CSV Injection". Numbers stay numbers.
    """
    if isinstance(value, str) and value.startswith(FORMULA) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def code_span(text: str) -> Markup:
    """Return a text as code in a line, or in a table, of Markdown."""
    text = one_line(text).replace("|", r"\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return Markup(f"{fence}{space}{text}{space}{fence}")


def string_literal(text: str) -> Markup:
    """Return a text as a string literal of Python."""
    return Markup(_visible(json.dumps(text, ensure_ascii=False)))


def restrict_markdown(text: str) -> Markup:
    """Return a text in Markdown without its HTML, pictures and links other than those to `https://` and `http://`.

    It has no fences either, of which an open one would make code of what follows, and no control characters.
    """
    text = re.sub(r"(?m)^([ \t]*)(?=```|~~~)", r"\1\\", "\n".join(map(_visible, text.splitlines())))
    text = text.replace("<", "&lt;").replace("![", "&#33;[")
    return Markup(re.sub(r"\](?!\(https?://[^\s()]+\)|[^(\[:]|$)", "&#93;", text))


def markdown_table(rows: Rows, decimals: int = 4) -> Markup:
    """Return one or more rows as a table in Markdown, columns of numbers aligned right."""
    aligned = ["---" if isinstance(value, str) else "---:" for value in rows[0].values()]
    lines: list[list[str]] = [[escape_markdown(str(name)) for name in rows[0]], aligned]
    lines += [[_text(value, decimals) for value in row.values()] for row in rows]
    return Markup("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _text(value: Any, decimals: int) -> str:
    if value is None:
        return "–"
    if isinstance(value, Cell):
        return value.text
    if isinstance(value, float):
        return f"{value:,.{decimals}f}"
    return f"{value:,}" if isinstance(value, int) else escape_markdown(str(value))


def _finalize(value: Any) -> Any:
    return escape_markdown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_MARKDOWN = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1]),
    undefined=StrictUndefined,
    autoescape=True,
    finalize=_finalize,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_MARKDOWN.filters |= {
    "code": code_span,
    "html": escape_html,
    "literal": string_literal,
    "number": lambda value, spec: Markup(format(value, spec)),
    "percent": lambda share: f"{100 * share:.1f} %",
    "table": markdown_table,
}
_HTML = _MARKDOWN.overlay(finalize=None)  # `autoescape` is enough


def render_template(template: str, /, **values: Any) -> str:
    """Render a template of the package, `.md` or `.html`, whose filters include the functions above."""
    return (_HTML if template.endswith(".html") else _MARKDOWN).get_template(template).render(values)
