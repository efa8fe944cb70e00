"""Variants of training texts, for teachers to label."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from ..alignment import Span


def with_other_names(
    texts: Sequence[str], spans: Sequence[Sequence[Span]], names: Mapping[str, Sequence[Sequence[str]]], seed: int
) -> Iterator[str]:
    """A variant of each text: every entity without a digit is replaced, by another one of its type or by a similar one.

    What the new name is in its new place, a teacher has to say. Particles are left as they are, right or wrong for it.

    Args:
        spans: the entities of each text, in order.
        names: of mentions of entities, the parts of which they consist, and of each part the texts that may stand
            there, as of `morphology.names_like`. Half of the time a mention that has some is made anew from these.
        seed: of the draws.
    """
    random = Random(seed)
    mentions: dict[str, list[str]] = {}
    for text, entities in zip(texts, spans, strict=True):
        for start, end, label in entities:
            mentions.setdefault(label, []).append(text[start:end])
    for text, entities in zip(texts, spans, strict=True):
        pieces, at = [], 0
        for start, end, label in entities:
            mention = text[start:end]
            if not any(map(str.isdigit, mention)):
                parts = names.get(mention) if random.random() < 0.5 else None
                mention = "".join(map(random.choice, parts or [mentions[label]]))
            pieces += [text[at:start], mention]
            at = end
        yield "".join([*pieces, text[at:]])


def with_other_words(texts: Sequence[str], seed: int) -> Iterator[str]:
    """A variant of each text: a run of its words, every other time with one of another text behind it.

    Runs have a third of the words or more. Tang et al. (2019) sample n-grams of words for the same purpose.

    Args:
        seed: of the draws.
    """
    random = Random(seed)
    words = [text.split() for text in texts]

    def run(of_text: list[str]) -> list[str]:
        length = random.randint(-(-len(of_text) // 3), len(of_text))
        start = random.randint(0, len(of_text) - length)
        return of_text[start : start + length]

    for of_text in words:
        other = run(random.choice(words)) if random.random() < 0.5 else []
        yield " ".join(run(of_text) + other)
