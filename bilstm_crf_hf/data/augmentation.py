"""Variants of training texts that teachers label for distillation."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from ..alignment import Span
from .rows import read_rows, text_of

Parts = Sequence[Sequence[str]]
"""Alternatives for each part of a name."""


def with_other_names(
    texts: Sequence[str],
    spans: Sequence[Sequence[Span]],
    sources: Sequence[Mapping[str, Parts]],
    seed: int,
) -> Iterator[str]:
    """Yield a variant of each text, in which another name replaces each entity that has no digit.

    The new name is the text of another entity of the same type, or is composed of the parts that one of `sources` has
    for the entity, each with the same probability. Particles stay as they are, even if they do not fit it. A teacher
    has to label the variant, as the type may differ in this context.

    Args:
        spans: the entities of each text, in order.
        sources: parts of names by the text of an entity ([`morphology.similar_names`], [`names_of_types`]).
    """
    random = Random(seed)
    mentions: dict[str, list[str]] = {}
    for text, entities in zip(texts, spans, strict=True):
        for start, end, label in entities:
            mentions.setdefault(label, []).append(text[start:end])
    for text, entities in zip(texts, spans, strict=True):
        parts, position = [], 0
        for start, end, label in entities:
            mention = text[start:end]
            if not any(map(str.isdigit, mention)):
                known = [source[mention] for source in sources if mention in source]
                mention = "".join(map(random.choice, random.choice([[mentions[label]], *known])))
            parts += [text[position:start], mention]
            position = end
        yield "".join([*parts, text[position:]])


def names_of_types(path: str, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> dict[str, list[list[str]]]:
    """Return the names in a file that may replace each entity: those of its type, as one part.

    `path` is a file of any type in `rows.READERS` with the columns `name` and `label`.

    Raises:
        FileNotFoundError, ImportError, ValueError: see [`rows.read_rows`]; if a row lacks a name or a label.
    """
    names: dict[str, list[str]] = {}
    for row in read_rows(path):
        names.setdefault(text_of(row, "label"), []).append(text_of(row, "name"))
    return {
        text[start:end]: [names[label]]
        for text, entities in zip(texts, spans, strict=True)
        for start, end, label in entities
        if label in names
    }


def with_other_words(texts: Sequence[str], seed: int) -> Iterator[str]:
    """Yield a variant of each text: consecutive words of it, in half of the cases followed by some of another text.

    At least a third of the words of a text is taken. Tang et al. (2019) sample n-grams of words for the same purpose.
    """
    random = Random(seed)
    tokenized = [text.split() for text in texts]

    def draw_run(words: list[str]) -> list[str]:
        length = random.randint(-(-len(words) // 3), len(words))
        start = random.randint(0, len(words) - length)
        return words[start : start + length]

    for words in tokenized:
        other = draw_run(random.choice(tokenized)) if random.random() < 0.5 else []
        yield " ".join(draw_run(words) + other)
