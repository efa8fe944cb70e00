"""Layouts of named-entity corpora in lines: inline marks, columns, KMOU's files and CoNLL-U.

All lines of a file are read before its layout is chosen. A line that does not fit it is an error that names the line.
To add a layout, write a function that reads it and add it to `LAYOUTS`.
"""

import logging
import re
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import dropwhile, groupby
from pathlib import Path
from typing import NamedTuple

from .inline_marks import parse_lines
from .lines import read_lines
from .rows import Row
from .sentences import Sentence, TaggedTokens
from .tag_schemes import is_tag

logger = logging.getLogger(__name__)

Lines = list[tuple[int, str]]
"""Lines of a file with their numbers from 1."""


class LayoutOptions(NamedTuple):
    """The options of `load_ner_datasets` that concern files in lines, and the types of other splits."""

    entity_types: Sequence[str] | None = None
    token_column: int | None = None
    tag_column: int = -1
    known_types: frozenset[str] = frozenset()


class Layout(NamedTuple):
    """A layout of corpora in lines: its suffixes, a test of all lines that are not blank, and a reader."""

    suffixes: tuple[str, ...]
    fits: Callable[[list[str]], bool]
    read: Callable[[Path, Lines, LayoutOptions], Sequence[Sentence | TaggedTokens]]


def read_layout(path: Path, options: LayoutOptions) -> Sequence[Sentence | TaggedTokens]:
    """Read a file with one of the suffixes in `LAYOUTS`.

    Raises:
        ValueError: with the file and, where there is one, the line, if the file is empty or does not fit its layout.
    """
    lines = list(enumerate(read_lines(path), 1))
    for number, line in lines:
        if "\r" in line:
            raise ValueError(f"{path}:{number}: a carriage return within the line: end the lines with \\n or \\r\\n")
        if line.startswith("\ufeff"):
            raise ValueError(
                f"{path}:{number}: a byte order mark within the file, as if several were joined: remove it"
            )
    content = [line for _, line in lines if line.strip()]
    if not content:
        raise ValueError(f"{path}: no sentence in it")
    suffix = path.suffix.lower()
    layout = next(layout for layout in LAYOUTS if suffix in layout.suffixes and layout.fits(content))
    return layout.read(path, lines, options)


def read_inline(path: Path, lines: Lines, options: LayoutOptions) -> list[Sentence]:
    """Read a file with a sentence a line, whose entities are marked as in `<경찰:OG>은 또`; see [`parse_inline`].

    Raises:
        ValueError: with the line, if it has a tab, or for the reasons of [`parse_inline`].
    """
    for number, line in lines:
        if "\t" in line:
            problem = "a tab, though other lines have marks as in <경찰:OG>, which belong to a layout without tabs"
            raise ValueError(f"{path}:{number}: {problem}: replace the tab, or name a file in columns .conll")
    sentences = parse_lines(path, lines, options.entity_types, options.known_types)
    if not any(sentence.spans for sentence in sentences):  # plain text would become sentences without entities
        problem = "no entity is marked as in <경찰:OG>, and most lines do not end in a tag as in a file in columns"
        raise ValueError(f"{path}: {problem}; is this file in another format?")
    return sentences


# Columns

LONG_SENTENCE = 2000
"""The number of tokens from which on a sentence is probably several."""


def read_columns(path: Path, lines: Lines, options: LayoutOptions) -> list[TaggedTokens]:
    """Read a file with a token and its tag a line and blank lines between sentences, such as KLUE's or CoNLL-2003's.

    Columns are separated by tabs, or in a file without tabs by spaces; all lines have the same number of columns.
    They are numbered from 0, or from the end by negative numbers. `-DOCSTART-` separates documents, and so sentences
    like a blank line.
    Lines that begin with `#` before a sentence are comments if they have other columns or, after `# ` or `##`, no tag.

    Raises:
        ValueError: with the line, if it has another number of columns than most lines, no token or no tag; if the file
            has no such column, or its first column counts the tokens.
    """
    blocks = _blocks(lines)
    if not blocks:
        return []
    split = _separator(path, [row for block in blocks for row in block])
    widths = Counter(len(split(line)) for block in blocks for _, line in block if line[0] != "#")
    width = widths.most_common(1)[0][0] if widths else len(split(blocks[0][0][1]))
    if width < 2:
        number, line = blocks[0][0]
        raise ValueError(f"{path}:{number}: expected a token and a tag, between them a tab or spaces, found {line!r}")
    token_column = _column_index(path, options.token_column or 0, width)
    tag_column = _column_index(path, options.tag_column, width)
    if token_column == tag_column:
        raise ValueError(f"{path}: column {token_column} cannot have both the tokens and the tags: name two columns")

    documents = _documents(lines, blocks)
    sentences = [
        _tagged_tokens(path, block, split, width, token_column, tag_column)._replace(document=document)
        for block, document in zip(blocks, documents, strict=True)
    ]
    if comments := sum(map(len, blocks)) - sum(len(sentence.tokens) for sentence in sentences):
        logger.info("%s: skipped %d lines of comments", path, comments)
    sentences = [sentence for sentence in sentences if sentence.tokens]
    if width > 2:
        logger.info("%s: tokens in column %d, tags in column %d of %d", path, token_column, tag_column, width)
        if options.token_column is None:
            _check_is_no_index(path, [sentence.tokens for sentence in sentences])
    for sentence in sentences:
        for number, tag in zip(sentence.numbers, sentence.tags, strict=True):
            if not is_tag(tag):
                problem = f"{tag!r} in column {tag_column} is not a tag such as O or B-PS"
                remedy = "correct it, name another --tag_column, or remove the line if it is a header"
                raise ValueError(f"{path}:{number}: {problem}: {remedy}")
        if len(sentence.tokens) > LONG_SENTENCE:
            problem = f"a sentence of {len(sentence.tokens)} tokens begins here: are blank lines missing?"
            logger.warning("%s:%d: %s", path, sentence.numbers[0], problem)
    return sentences


def conll_rows(path: Path, token_column: int | None = None) -> Iterator[Row]:
    """Read the sentences of a file in columns as rows with `tokens`, and with `document_id` if it marks documents.

    Lines that begin with `#` before a sentence and have another number of columns than most lines are comments.

    Raises:
        ValueError: with the line, if it has another number of columns than most lines or no token; if the file has no
            such column or no sentence, or its first column counts the tokens.
    """
    lines = list(enumerate(read_lines(path), 1))
    if not (blocks := _blocks(lines)):
        raise ValueError(f"{path}: no sentence in it")
    split = _separator(path, [row for block in blocks for row in block])
    ((width, _),) = Counter(len(split(line)) for block in blocks for _, line in block).most_common(1)
    column = _column_index(path, token_column or 0, width)
    rows = []
    for block, document in zip(blocks, _documents(lines, blocks), strict=True):
        columns_of_document = {} if document is None else {"document_id": document}
        tokens = []
        for number, line in dropwhile(lambda row: row[1][0] == "#" and len(split(row[1])) != width, block):
            columns = split(line)
            if len(columns) != width or not columns[column].strip():
                problem = f"expected {width} columns as in most lines, and a token in column {column}, found {line!r}"
                raise ValueError(f"{path}:{number}: {problem}: separate them by one tab, or by spaces")
            tokens.append(columns[column])
        if tokens:
            rows.append(Row(f"{path}:{block[0][0]}", {"tokens": tokens} | columns_of_document))
    if token_column is None and width > 1:
        _check_is_no_index(path, [row.columns["tokens"] for row in rows])
    yield from rows


def _tagged_tokens(
    path: Path, block: Lines, split: Callable[[str], list[str]], width: int, token_column: int, tag_column: int
) -> TaggedTokens:
    """Return the tokens and tags of the lines of a sentence; comments before it are left out."""

    def is_comment(row: tuple[int, str]) -> bool:
        line = row[1]
        if line[0] != "#":
            return False
        columns = split(line)
        if len(columns) != width:
            return columns[-1] == "O" or not is_tag(columns[-1])
        return line.startswith(("# ", "##")) and not is_tag(columns[tag_column])

    numbers, tokens, tags = [], [], []
    for number, line in dropwhile(is_comment, block):
        columns = split(line)
        if len(columns) != width:
            problem = f"{len(columns)} columns in {line!r}, but most lines of the file have {width}"
            raise ValueError(f"{path}:{number}: {problem}: separate them by one tab, or by spaces that no token has")
        if not columns[token_column]:
            problem = f"no token in column {token_column} of {line!r}"
            raise ValueError(f"{path}:{number}: {problem}: add one, or name another --token_column")
        numbers.append(number)
        tokens.append(columns[token_column])
        tags.append(columns[tag_column])
    return TaggedTokens(f"{path}:", numbers, tokens, tags)


def _blocks(lines: Lines) -> list[Lines]:
    """Return the runs of lines between blank lines and lines with `-DOCSTART-`."""
    groups = groupby(lines, lambda row: not row[1].strip() or row[1].upper().startswith("-DOCSTART"))
    return [list(block) for is_between, block in groups if not is_between]


def _documents(lines: Lines, blocks: list[Lines]) -> list[int | None]:
    """Return the number of the document of each block, which `-DOCSTART-` or `# newdoc` begins; None without these."""
    mark = re.compile(r"-DOCSTART.*|#\s*newdoc(\s+id\s*=.*)?\s*", re.IGNORECASE)
    starts = [number for number, line in lines if mark.fullmatch(line)]
    return [bisect(starts, block[-1][0]) if starts else None for block in blocks]


def _separator(path: Path, lines: Lines) -> Callable[[str], list[str]]:
    """Return the function that splits the lines of a file, at tabs if it has any, otherwise at spaces."""
    content = [row for row in lines if not row[1].startswith("#")] or lines
    with_tab = next((number for number, line in content if "\t" in line), None)
    if with_tab is None:
        return lambda line: [column for column in line.split(" ") if column]
    if without := next((number for number, line in content if "\t" not in line), None):
        problem = f"no tab, though line {with_tab} has one"
        raise ValueError(f"{path}:{without}: {problem}: separate the columns of all lines by tabs, or of all by spaces")
    return lambda line: line.split("\t")


def _column_index(path: Path, column: int, width: int) -> int:
    if not -width <= column < width:
        raise ValueError(f"{path}: there is no column {column} (--token_column, --tag_column): most lines have {width}")
    return column % width


def _check_is_no_index(path: Path, sentences: list[Sequence[str]]) -> None:
    """Raise ValueError if the first column, instead of words, counts the tokens or names the sentence."""
    longer = [tokens for tokens in sentences if len(tokens) > 1] or sentences
    shapes = [{re.sub(r"\d+([-.]\d+)*", "0", token) for token in tokens} for tokens in longer]  # of w1, 2-3, 4.1 or [5]
    alike = [tokens for tokens, own in zip(longer, shapes, strict=True) if own == {"0"} or len(own) == 1 < len(tokens)]
    if 2 * len(alike) > len(longer):
        first = alike[0]
        is_same = f"is the same in all lines of a sentence ({first[0]!r})"
        problem = is_same if len(set(first)) == 1 < len(first) else f"counts {', '.join(first[:2])}, ..."
        remedy = "name it with --token_column, and that of the tags with --tag_column"
        raise ValueError(f"{path}: column 0 {problem}: which column has the words? {remedy} (the next one is 1)")


# KMOU


def read_kmou(path: Path, lines: Lines, options: LayoutOptions) -> list[Sentence]:
    """Read a file of the KMOU corpus, whose sentences are blocks of three lines of header and a morpheme a line:

    ```
    ## 1
    ## 민수는 부산에 산다.
    ## <민수:PER>는 <부산:LOC>에 산다.
    민수⇥민수⇥NNP⇥B-PER
    ```

    The third line of the header is read, since morphemes are not parts of the text; their tags are not.

    Raises:
        ValueError: with the line, if a block has another header, a line without tabs below it, or an annotation that
            is not that of the plain sentence; for the reasons of [`parse_inline`].
    """
    annotated, plain = [], []
    for block in _blocks(lines):
        for i, (number, line) in enumerate(block):
            if line.startswith("## ") != (i < 3) or ("\t" in line) != (i >= 3):
                expected = "three lines '## number', '## sentence', '## annotated sentence', then morphemes with tabs"
                raise ValueError(
                    f"{path}:{number}: expected {expected}, found {line!r}: correct or remove the sentence"
                )
        if len(block) < 3:
            raise ValueError(f"{path}:{block[-1][0]}: the sentence ends before its annotated line: add or remove it")
        plain.append(block[1][1].removeprefix("## "))
        annotated.append((block[2][0], block[2][1].removeprefix("## ")))
    sentences = parse_lines(path, annotated, options.entity_types, options.known_types)
    for (number, line), sentence, text in zip(annotated, sentences, plain, strict=True):
        if sentence.text != text:
            raise ValueError(
                f"{path}:{number}: {line!r} without its marks is not {text!r}: correct or remove the sentence"
            )
    return sentences


# CoNLL-U


NER_KEYS = ("ner", "name", "ne")
"""The keys, in lower case, that hold the tag of a word in the last column of CoNLL-U: `NER=B-PER`."""


def read_conllu(path: Path, lines: Lines, options: LayoutOptions) -> list[TaggedTokens]:
    """Read a CoNLL-U file whose tags are in the last column (MISC), with a key of `NER_KEYS`; words without one are O.

    The text follows from `SpaceAfter=No`. The words of a multiword token such as `1-2` have its range in the text,
    unless its own line has a tag. Empty nodes such as `8.1` have no text and are left out.

    Raises:
        ValueError: with the line, if it does not have ten columns, an empty node belongs to an entity, or the text is
            not that of the comment `# text = `; if no word has a tag.
    """
    sentences, has_tags = [], False
    blocks = _blocks(lines)
    for block, document in zip(blocks, _documents(lines, blocks), strict=True):
        text, given, last_word, is_tagged = "", None, 0, False  # the last two belong to the multiword token before
        rows: list[tuple[int, str, str, tuple[int, int]]] = []
        for number, line in block:
            if line.startswith("#"):
                given = line.partition("=")[2].strip() if re.match(r"#\s*text\s*=", line) else given
                continue
            columns = line.split("\t")
            index = re.fullmatch(r"(\d+)(-\d+|\.\d+)?", columns[0])
            if not index or len(columns) != 10:
                raise ValueError(f"{path}:{number}: expected ten columns between tabs, the first a number: {line!r}")
            form, misc = columns[1], dict(pair.partition("=")[::2] for pair in columns[9].split("|"))
            tag = next((value for key, value in misc.items() if key.lower() in NER_KEYS), None)
            has_tags |= tag is not None
            first, rest = int(index[1]), index[2] or ""
            if rest.startswith("."):
                if tag not in (None, "O"):
                    raise ValueError(f"{path}:{number}: an empty node has no text, so it cannot have the tag {tag}")
                continue
            if first > last_word:
                place = (len(text), len(text) + len(form))
                text += form if misc.get("SpaceAfter") == "No" else f"{form} "
            if rest:
                last_word, is_tagged = int(rest[1:]), tag is not None
            if is_tagged if rest else first > last_word or not is_tagged:
                rows.append((number, form, tag or "O", place))
        text = text.removesuffix(" ")
        if given is not None and given != text.strip():
            problem = f"the words give {text!r}, but the comment says {given!r}"
            raise ValueError(f"{path}:{block[0][0]}: {problem}: correct SpaceAfter=No, or remove the comment")
        if rows:
            numbers, tokens, tags, ranges = zip(*rows, strict=True)
            sentences.append(TaggedTokens(f"{path}:", numbers, tokens, tags, text, ranges, document))
    if not has_tags:
        raise ValueError(f"{path}: no word has a tag such as NER=B-PS in the last column: name the annotated file")
    return sentences


# All layouts


def _is_kmou(lines: list[str]) -> bool:
    """Return whether three lines that begin with `##` precede four columns, or a number precedes one."""
    header = r"##[^\t\n]*\n"
    pattern = rf"^{header}{header}{header}([^\t\n]*\t){{3}}|^##\s?\d+\n##"
    return re.search(pattern, "\n".join(lines), re.MULTILINE) is not None


def _is_inline(lines: list[str]) -> bool:
    """Return whether lines are not in columns, and some have a mark or none has a tab."""
    content = [line for line in lines if not line.startswith("#")]
    has_tabs = any("\t" in line for line in lines)
    ends_in_tag = sum(is_tag(re.split("[ \t]", line.rstrip(" "))[-1]) for line in content)
    if 2 * ends_in_tag > len(content) or (has_tabs and all("\t" in line for line in content)):
        return False
    return not has_tabs or any(re.search("<[^<>]*:[A-Z][A-Z0-9_]*>", line) for line in content)


COLUMN_SUFFIXES = (
    *(".txt", ".tsv", ".conll", ".bio", ".iob", ".iob1", ".iob2", ".bioes", ".iobes", ".bilou", ".col"),
    *(".train", ".dev", ".test", ".testa", ".testb", ".annotated"),
)

LAYOUTS = (
    Layout((".conllu",), lambda _: True, read_conllu),
    Layout(COLUMN_SUFFIXES, _is_kmou, read_kmou),
    Layout((".txt",), _is_inline, read_inline),
    Layout(COLUMN_SUFFIXES, lambda _: True, read_columns),
)
"""The layouts of corpora in lines, in the order in which they are tried."""
