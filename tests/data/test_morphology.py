import pytest

from bilstm_crf_hf.alignment import spans_from_tags
from bilstm_crf_hf.data import morphology
from bilstm_crf_hf.data.morphology import morpheme_spans, morpheme_tags
from bilstm_crf_hf.data.tokenization import build_character_tokenizer

TEXTS = [
    "그는 서울에 도착한 뒤 갔다.",
    "😀 도와 준 친구를 만났다 😀",
    "세종대왕이 글자를 만들었다.",
    "1992년 7월 8일 ㅋㅋ  춘천에서",
]


@pytest.fixture(autouse=True)
def _fewer_nouns(monkeypatch):
    """Clusters of the 3,000 most frequent morphemes only."""
    monkeypatch.setattr(morphology, "NUM_MORPHEMES", 3000)
    morphology.noun_clusters.cache_clear()
    yield
    morphology.noun_clusters.cache_clear()


def test_a_syllable_goes_to_the_first_of_its_morphemes():
    """`한` is `하` and `ᆫ`, `갔` is `가` and `었`. Offsets are those of Python, behind wide characters too."""
    pytest.importorskip("kiwipiepy")
    found = [{text[start:end]: tag for start, end, tag in spans} for text, spans in zip(TEXTS, morpheme_spans(TEXTS))]
    assert {"는": "JX", "에": "JKB", "한": "XSV", "갔": "VV", "다": "EF"}.items() <= found[0].items()
    assert {"도": "VV", "준": "VX", "를": "JKO", "만났": "VV"}.items() <= found[1].items()  # 도와: 돕 (VV-I), 어


@pytest.mark.slow
def test_spans_cover_what_is_visible_and_do_not_overlap():
    """Each character once, by the first of Kiwi's own tokens that has it."""
    kiwipiepy = pytest.importorskip("kiwipiepy")
    kiwi = kiwipiepy.Kiwi()
    for text, spans in zip(TEXTS, morpheme_spans(TEXTS), strict=True):
        owner = {}
        for i, character in enumerate(text):
            if not character.isspace():
                owner[i] = next(n for n, token in enumerate(kiwi.tokenize(text)) if token.start <= i < token.end)
        groups = [[i for i in owner if owner[i] == n] for n in sorted(set(owner.values()))]
        assert [(start, end) for start, end, _ in spans] == [(group[0], group[-1] + 1) for group in groups]


def test_tags_of_characters_say_the_morphemes():
    pytest.importorskip("kiwipiepy")
    tokenizer = build_character_tokenizer(TEXTS)
    offsets = tokenizer(TEXTS, return_offsets_mapping=True).offset_mapping
    for pairs, tags, spans in zip(offsets, morpheme_tags(TEXTS, offsets), morpheme_spans(TEXTS), strict=True):
        assert tags[0] is tags[-1] is None  # [CLS] and [SEP]
        said = [(pairs[1 + start][0], pairs[end][1], label) for start, end, label in spans_from_tags(tags[1:-1])]
        assert said == [tuple(span) for span in spans]


def test_nouns_of_like_meaning_have_the_same_tag():
    """Towns, and numbers of things, are nearer to each other than to one another, by the clusters."""
    pytest.importorskip("kiwipiepy")
    kiwi, clusters = morphology.kiwi(), morphology.noun_clusters()
    assert len(set(clusters.values())) > morphology.NUM_CLUSTERS // 2

    def of(*words: str) -> set[int]:
        return {clusters[kiwi.tokenize(word)[0].id] for word in words}

    assert len(of("부산", "대구", "인천", "광주")) < 4
    assert not of("부산", "대구", "인천", "광주") & of("영화", "배우", "감독")


def test_names_with_spaces_are_tagged_by_their_class():
    """Q5 is a human in Wikidata."""
    pytest.importorskip("kiwipiepy")
    text = "더글러스 애덤스가 왔다."
    assert next(morpheme_spans([text]))[0] == (0, 8, "Q5")
    names = morphology.dictionary_names()
    assert {"더글러스 애덤스", "고양 국민은행 축구단"} <= set(names)
    assert len(names) == len(set(names)) > 300_000


@pytest.mark.slow
def test_names_are_replaced_morpheme_by_morpheme_by_those_of_their_cluster_or_class():
    pytest.importorskip("kiwipiepy")
    found = morphology.similar_names(["부산 해운대구", "더글러스 애덤스", "서울시청", "세 명"])
    assert found.keys() == {"부산 해운대구", "더글러스 애덤스", "서울시청"}  # the last one has no proper noun
    assert {"부산", "광주", "경기도"} <= set(found["부산 해운대구"][1])
    assert [len(part) for part in found["부산 해운대구"]][::2] == [1, 1, 1]
    assert found["부산 해운대구"][2] == [" "]
    (people,) = (part for part in found["더글러스 애덤스"] if len(part) > 1)
    assert len(people) > 100_000
    assert "조지 워커 부시" in people
    assert not {"고양 국민은행 축구단", "강남"} & set(people)
    for mention, parts in found.items():  # what has no choice is as it was
        assert all(part[0] in mention for part in parts if len(part) == 1)


def test_a_damaged_dictionary_of_kiwi_is_named_with_its_line(tmp_path, monkeypatch):
    model = pytest.importorskip("kiwipiepy_model")
    monkeypatch.setattr(model, "get_model_path", lambda: tmp_path)
    (tmp_path / "multi.dict").write_bytes("# 사전\n잭\u2028바우어\tNNP\t0\t# Q5\n잭".encode())
    entries = morphology._dictionary("multi.dict")
    assert next(entries) == ["잭\u2028바우어", "NNP", "0", "# Q5"]
    with pytest.raises(ValueError, match=r"multi\.dict:3: expected a word, a tab and its tag: install kiwipiepy_model"):
        next(entries)
