import re
from types import MappingProxyType

import pytest
from conftest import SENTENCES

from bilstm_crf_hf.alignment import render
from bilstm_crf_hf.data.augmentation import read_names, with_other_names, with_other_words
from bilstm_crf_hf.data.inline_marks import parse_inline

NAMES = ["더글러스 애덤스", "고양 국민은행 축구단"]
PARTS = [["주식회사 "], NAMES]
PARSED = [parse_inline(sentence) for sentence in SENTENCES]
TEXTS, SPANS = [text for text, _ in PARSED], [spans for _, spans in PARSED]


def variants(parts=MappingProxyType({}), names=MappingProxyType({}), seeds=range(20)) -> list[list[str]]:
    return [list(with_other_names(TEXTS, SPANS, parts, names, seed)) for seed in seeds]


def test_only_names_are_replaced_by_mentions_of_their_type():
    """Every variant fits a pattern: what stands between entities, numbers, and any mention of the type of a name."""
    mentions: dict[str, set[str]] = {}
    for text, spans in PARSED:
        for start, end, label in spans:
            mentions.setdefault(label, set()).add(text[start:end])
    patterns = []
    for text, spans in PARSED:
        marked = re.escape(render(text, spans))
        for start, end, label in spans:
            mention = text[start:end]
            choices = {mention} if re.search(r"\d", mention) else mentions[label]
            marked = marked.replace(re.escape(f"<{mention}:{label}>"), f"({'|'.join(map(re.escape, choices))})", 1)
        patterns.append(re.compile(marked))
    drawn = variants()
    assert all(pattern.fullmatch(text) for rows in drawn for pattern, text in zip(patterns, rows, strict=True))
    assert len({rows[0] for rows in drawn}) > 3  # 손흥민 and 춘천 vary
    assert {rows[5] for rows in drawn} == {TEXTS[5]}  # which has no entity


def test_half_of_the_names_are_made_of_those_given():
    names = {TEXTS[3][start:end]: PARTS for start, end, _ in SPANS[3]}
    drawn = variants(names, seeds=range(100))
    made = {f"주식회사 {name}" for name in NAMES}
    assert 0.6 < sum(any(name in rows[3] for name in made) for rows in drawn) / len(drawn) < 0.9  # 1 - 0.5 ** 2
    assert all(any(name in rows[3] for rows in drawn) for name in made)
    without = [i for i, text in enumerate(TEXTS) if not any(name in text for name in names)]
    assert without
    assert not any(name in rows[i] for rows in drawn for name in made for i in without)


def test_draws_depend_on_the_seed_alone():
    names = {text[start:end]: PARTS for text, spans in PARSED for start, end, _ in spans}
    assert variants(names, seeds=[7]) == variants(names, seeds=[7]) != variants(names, seeds=[8])


def test_names_in_a_file_replace_entities_of_their_type(tmp_path):
    path = tmp_path / "names.tsv"
    path.write_text("name\tlabel\n제갈공명\tPS\n을지문덕\tPS\n", encoding="utf-8")
    names = read_names(str(path), {"PS", "LC"})
    assert names == {"PS": ["제갈공명", "을지문덕"]}
    drawn = variants(names=names, seeds=range(40))
    assert {"제갈공명", "을지문덕"} <= {
        row for rows in drawn for text in rows for row in re.findall("제갈공명|을지문덕", text)
    }
    with_persons = [any(label == "PS" for *_, label in spans) for spans in SPANS]
    assert not any("제갈공명" in rows[i] for rows in drawn for i, has in enumerate(with_persons) if not has)


def test_a_name_of_two_types_is_replaced_by_its_type_in_each_sentence():
    texts, spans = ["정전에서", "정전이"], [[(0, 2, "LC")], [(0, 2, "PS")]]
    drawn = {tuple(with_other_names(texts, spans, {}, {"LC": ["종묘"], "PS": ["제니"]}, seed)) for seed in range(20)}
    assert drawn == {("정전에서", "정전이"), ("종묘에서", "정전이"), ("정전에서", "제니이"), ("종묘에서", "제니이")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name\n제갈공명\n", r"names.tsv:2.*label"),
        ("name\tlabel\n제갈공명\tPER\n", '2: label is "PER", .* one of LC, PS'),
    ],
)
def test_names_without_a_type_of_the_corpus_are_refused(content, message, tmp_path):
    path = tmp_path / "names.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_names(str(path), {"PS", "LC"})


def runs(text: str) -> set[str]:
    """All runs of a third of its words or more."""
    words = text.split()
    pairs = ((i, j) for i in range(len(words)) for j in range(i + 1, len(words) + 1))
    return {" ".join(words[i:j]) for i, j in pairs if 3 * (j - i) >= len(words)}


def test_half_of_the_variants_go_on_with_words_of_another_text():
    """Each is a run of the text, or that and another one's; all runs come up."""
    drawn = [list(with_other_words(TEXTS, seed)) for seed in range(400)]
    joined = {f"{first} {second}" for first in runs(TEXTS[1]) for text in TEXTS for second in runs(text)}
    of_one = [rows[1] for rows in drawn]
    assert runs(TEXTS[1]) <= set(of_one) <= runs(TEXTS[1]) | joined
    assert 0.4 < sum(text in runs(TEXTS[1]) for text in of_one) / len(of_one) < 0.6
    assert list(with_other_words(TEXTS, 7)) == drawn[7] != drawn[8]
    assert [len(row.split()) > 0 for row in with_other_words(["", "비가 온다"], 0)][1]
