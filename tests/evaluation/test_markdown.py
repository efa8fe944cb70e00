"""Reports show texts of others as they are: read back with a parser of Markdown, HTML and CSV."""

import ast
import csv
import json
from html.parser import HTMLParser
from io import StringIO

import pytest
from markdown_it import MarkdownIt

from bilstm_crf_hf.evaluation.comparison_page import _csv, to_html
from bilstm_crf_hf.evaluation.markdown import (
    _HTML,
    _MARKDOWN,
    code_span,
    escape_cell,
    escape_html,
    escape_markdown,
    markdown_table,
    restrict_markdown,
    string_literal,
)

EVIL = [
    "| <img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "</summary></details><b>",
    "[x](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    "<javascript:alert(1)>",
    "`code` **bold** _it_ ~~s~~ $x$ &lt;",
    r"\<b>\\<b>",
    "# heading",
    "- item",
    "+ item",
    "1. item",
    "12) item",
    "===",
    "---",
    "> quote",
    "a\n\n<b>x</b>\n\n- b",
    "a\r\n| b | c |",
    "```\nx",
    "{{ 7 * 7 }}{% raw %}",
    '"; import os #',
    "'=1+1",
]


class Document(HTMLParser):
    """The elements, and the text, of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.text, self.urls = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.urls += [value for name, value in attributes if name in ("href", "src")]

    def handle_data(self, data):
        self.text += data


def parse(markdown: str) -> Document:
    return Document(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))


@pytest.mark.parametrize("text", ["https://example.org/x", "www.example.org", "someone@example.org"])
def test_addresses_in_labels_do_not_become_links(text):
    """GitHub and the Hub make links of them, unless a part is escaped."""
    shown = escape_markdown(text)
    assert parse(shown).text.strip() == text
    assert not any(part in shown for part in ("s://", "www.", "e@"))


def test_a_description_cannot_open_a_fence_and_a_literal_hides_nothing():
    assert parse(f"{restrict_markdown('```')}\n\n# heading").tags == ["p", "h1"]
    assert restrict_markdown("a\x1b[31m\n\u202eb") == "a\\x1b[31m\n\\u202eb"
    text = "a\u202eb\ud800\x7f서울\n"
    assert string_literal(text).encode()
    assert ast.literal_eval(string_literal(text)) == text


@pytest.mark.parametrize("text", EVIL)
def test_escaped_text_is_shown_as_it_is(text):
    shown = " ".join(text.split())
    paragraph = parse(escape_markdown(text))
    assert (paragraph.tags, paragraph.text.strip()) == (["p"], shown)
    item = parse(f"- {escape_markdown(text)}\n")
    assert (item.tags, item.text.strip()) == (["ul", "li"], shown)
    html = Document(f"<summary>{escape_html(text)}</summary>")
    assert (html.tags, html.text) == (["summary"], shown)
    code = parse(f"a {code_span(text)} b".replace(r"\|", "|"))
    assert (code.tags, code.text.strip()) == (["p", "code"], f"a {shown} b")
    assert ast.literal_eval(str(string_literal(text))) == text
    assert "\n" not in string_literal(text)


@pytest.mark.parametrize("text", EVIL)
def test_a_table_has_the_cells_that_it_is_given(text):
    table = parse(markdown_table([{"name": text, text + "2": 1, "c": 0.5}]))
    assert table.tags == ["table", "thead", "tr", "th", "th", "th", "tbody", "tr", "td", "td", "td"]
    shown = " ".join(text.split())
    cells = [cell for cell in table.text.split("\n") if cell]
    assert cells == ["name", " ".join((text + "2").split()), "c", shown, "1", "0.5000"]


@pytest.mark.parametrize("text", EVIL)
def test_templates_escape_without_being_asked(text):
    source = "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ t }} {{ [t, t] | join(', ') }} {{ m(t) }} {{ -0.5 }} {{ 3 }}"
    shown = escape_markdown(text)
    inner = escape_markdown(f"{text}, {text}")
    assert _MARKDOWN.from_string(source).render(t=text) == f"{shown} {inner} <{shown}> -0.5 3"
    assert Document(_HTML.from_string("<title>{{ t }}</title>").render(t=text)).tags == ["title"]


def test_control_characters_and_directions_are_visible():
    text = "a\x1b[31mb\x00\u202ec\ud83d"
    assert escape_markdown(text) == r"a\\x1b\[31mb\\x00\\u202ec\\ud83d"
    assert escape_html(text) == r"a\x1b[31mb\x00\u202ec\ud83d"


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("[KLUE](https://klue-benchmark.com/a?b=c), *news*", ["https://klue-benchmark.com/a?b=c"]),
        ("[x](javascript:alert(1)) [y](<javascript:1>) [z](data:text/html,x) [w](/a)", []),
        (r"\[x](javascript:1) \\[x\](javascript:1)", []),
        ("[x]: javascript:1\n\n[x] [x][x] [x][]", []),
        ("![x](https://example.org/pixel.png)", ["https://example.org/pixel.png"]),
        (r"<img src=x onerror=1> \<img src=x> <https://a.b> <a href=javascript:1>", []),
    ],
)
def test_a_description_in_markdown_has_links_to_the_web_only(text, urls):
    document = parse(restrict_markdown(text))
    assert document.urls == urls
    assert set(document.tags) <= {"p", "em", "a"}


def test_a_heading_with_a_script_is_no_script_on_the_page():
    page = Document(to_html(f"# {escape_markdown('<script>alert(1)</script>')}\n", {}))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_no_cell_of_a_csv_file_is_a_formula(start):
    rows = [{f"{start}system": f"{start}cmd|' /C calc'!A1", "x": -0.5, "text": "-0.5", "y": f"a{start}"}]
    header, cells = csv.reader(StringIO(_csv(rows), newline=""))
    assert header == [f"'{start}system", "x", "text", "y"]
    assert cells == [f"'{start}cmd|' /C calc'!A1", "-0.5", "-0.5", f"a{start}"]


def test_numbers_of_a_csv_file_stay_numbers():
    assert [escape_cell(value) for value in (-0.5, -3, None, "+82", "-1e3", "")] == [-0.5, -3, None, "+82", "'-1e3", ""]
    assert json.loads(escape_cell("-12.25")) == -12.25
