"""Variants of training texts that teachers label for distillation."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from ..alignment import Span


def with_other_names(
    texts: Sequence[str], spans: Sequence[Sequence[Span]], names: Mapping[str, Sequence[Sequence[str]]], seed: int
) -> Iterator[str]:
    """Yield a variant of each text, in which another name replaces each entity that has no digit.

    The new name is the text of another entity of the same type, or is composed of the parts in `names`. Particles stay
    as they are, even if they do not fit it. A teacher has to label the variant, as the type may differ in this context.

    Args:
        spans: the entities of each text, in order.
        names: for the text of an entity, the alternatives for each of its parts ([`morphology.similar_names`]). An
            entity that has an entry is composed of these in half of the cases.
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
                alternatives = names.get(mention) if random.random() < 0.5 else None
                mention = "".join(map(random.choice, alternatives or [mentions[label]]))
            parts += [text[position:start], mention]
            position = end
        yield "".join([*parts, text[position:]])


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
