"""Odd words, and the tags of words by a look at single characters."""

ODD_WORDS = [
    [],
    [""],
    [" ", "\u3000", "\u200b", "[SEP]", "\xad"],
    ["", "김연아", "", "", "만나", "", "서울", ""],
    ["뉴 욕", " 서울에서", "김연아\n", "\t"],
    ["김연아" * 1667, "춘천" * 2500, "a" * 5000, "만났다"],
    ["Seoul서울京都", "مرحبا", "👨\u200d👩\u200d👧", "e\u0301", "김연아가", "\u0301"],
]


def expected_tags(words, entities, delimiter=" "):
    """The tags by a look at the first visible character of each word; holes are filled from the right."""
    at, tags, last = 0, [], None
    for word in words:
        first = next((at + i for i, c in enumerate(word) if not c.isspace()), None)
        inside = [n for n, e in enumerate(entities) if first is not None and e["start"] <= first < e["end"]]
        if first is None:
            tags.append(None)
        elif not inside:
            tags.append("O")
            last = None
        else:
            tags.append(("I-" if inside[0] == last else "B-") + entities[inside[0]]["entity_group"])
            last = inside[0]
        at += len(word) + len(delimiter)
    for i in reversed(range(len(tags))):
        if tags[i] is None:
            following = tags[i + 1] if i + 1 < len(tags) else "O"
            tags[i] = following if following[0] == "I" else "O"
    return tags
