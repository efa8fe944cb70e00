"""Sentences with other names in them, for teachers to label."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from .alignment import Span


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
