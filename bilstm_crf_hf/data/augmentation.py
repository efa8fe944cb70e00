"""Variants of training texts that teachers label for distillation."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from random import Random

from ..alignment import Span
from .rows import read_rows, shown, text_of


def with_other_names(
    texts: Sequence[str],
    spans: Sequence[Sequence[Span]],
    parts_of: Mapping[str, Sequence[Sequence[str]]],
    names: Mapping[str, Sequence[str]],
    seed: int,
) -> Iterator[str]:
    """Yield a variant of each text, in which another name replaces each entity that has no digit.

    The new name is the text of another entity of the same type, composed of parts, or one of the given names, each with
    the same probability. Particles stay as they are, even if they do not fit it. A teacher has to label the variant, as
    the type may differ in this context.

    Args:
        spans: the entities of each text, in order.
        parts_of: alternatives for each part of a name by the text of an entity, see [`morphology.similar_names`].
        names: names by the type of an entity, see [`read_names`].
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
                sources: list[Sequence[Sequence[str]]] = [[mentions[label]]]
                if mention in parts_of:
                    sources.append(parts_of[mention])
                if label in names:
                    sources.append([names[label]])
                mention = "".join(map(random.choice, random.choice(sources)))
            parts += [text[position:start], mention]
            position = end
        yield "".join([*parts, text[position:]])


def read_names(path: str, types: Collection[str]) -> dict[str, list[str]]:
    """Return the names in a file by their type, which is one of `types`.

    `path` is a file of any type in `rows.READERS` with the columns `name` and `label`.

    Raises:
        FileNotFoundError, ImportError, ValueError: see [`rows.read_rows`]; if a row lacks a name, or has another type.
    """
    names: dict[str, list[str]] = {}
    for row in read_rows(path):
        if (label := text_of(row, "label")) not in types:
            expected = ", ".join(sorted(types))
            raise ValueError(f"{row.place}: label is {shown(label)}, not a type of the corpus: give one of {expected}")
        names.setdefault(label, []).append(text_of(row, "name"))
    return names


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
