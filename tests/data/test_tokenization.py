import json
import random
import unicodedata

import pytest
from clean_process import run_without_package

from bilstm_crf_hf.data.tokenization import SPECIAL_TOKENS, build_character_tokenizer

TEXTS = [
    "손흥민은 1992년 7월 8일 강원도 춘천에서 태어났다.",
    "영화가 정말 재미있다 ㅋㅋㅋ 또 볼래요!!",
    "서울에서 부산까지 약 400km, 기차로 세 시간이다.",
    "大韓民國은 한국의 정식 이름이다 (#한국 ##중복).",
    "좋아요 😀👍🏽 정말 좋아요",
]


@pytest.fixture(scope="module")
def tokenizer():
    return build_character_tokenizer(TEXTS)


def visible(text):
    return [character for character in text if not character.isspace()]


def content(tokenizer, text):
    """Tokens and offsets without the special ones."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return tokenizer.convert_ids_to_tokens(encoded["input_ids"]), encoded["offset_mapping"]


@pytest.mark.parametrize("text", TEXTS)
def test_each_visible_character_is_a_token_and_spaces_are_none(tokenizer, text):
    tokens, offsets = content(tokenizer, text)
    assert [unicodedata.normalize("NFKC", text[start:end]) for start, end in offsets] == [
        unicodedata.normalize("NFKC", character) for character in visible(text)
    ]
    assert [token[-1] for token in tokens] == visible(unicodedata.normalize("NFKC", text))
    assert "[UNK]" not in tokens


def test_a_character_that_begins_a_word_is_another_token_than_within_one(tokenizer):
    assert tokenizer.tokenize("한국 국한\u3000한\n한한") == ["한", "##국", "국", "##한", "한", "한", "##한"]
    ids = tokenizer.get_vocab()
    assert ids["한"] != ids["##한"]


@pytest.mark.parametrize("text", TEXTS)
def test_word_starts_are_those_of_the_text(tokenizer, text):
    tokens, offsets = content(tokenizer, text)
    assert [not token.startswith("##") for token in tokens] == [
        start == 0 or text[start - 1].isspace() for start, _ in offsets
    ]


@pytest.mark.parametrize("text", [*TEXTS, "##한국 # #한 ###"])
def test_decode_gives_the_text_back(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == unicodedata.normalize("NFKC", text)


def test_decode_gives_random_texts_back_with_one_space_for_a_run_of_white_space(tokenizer):
    rng = random.Random(0)
    characters = sorted({c for text in TEXTS for c in visible(unicodedata.normalize("NFKC", text))})
    for _ in range(200):
        words = ["".join(rng.choices(characters, k=rng.randrange(1, 5))) for _ in range(rng.randrange(1, 6))]
        words = unicodedata.normalize("NFKC", " ".join(words)).split()
        text = "".join(word + rng.choice([" ", "  ", "\t", "\u3000"]) for word in words)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == " ".join(words)


def test_decode_keeps_spaces_before_punctuation(tokenizer):
    text = "좋아요 !! (한국 ) , 정말 ."
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("text", "tokens", "characters"),
    [
        ("400㎞", ["4", "##0", "##0", "##k", "##m"], ["4", "0", "0", "㎞", "㎞"]),
        ("１９９２년", ["1", "##9", "##9", "##2", "##년"], ["１", "９", "９", "２", "년"]),
        ("ㅋㅋ", ["\u110f", "##\u110f"], ["ㅋ", "ㅋ"]),
        ("한\u00a0국", ["한", "국"], ["한", "국"]),
    ],
)
def test_text_is_nfkc_normalised_and_offsets_are_those_of_the_original(tokenizer, text, tokens, characters):
    found, offsets = content(tokenizer, text)
    assert found == tokens
    assert [text[start:end] for start, end in offsets] == characters


def test_decomposed_syllables_are_the_tokens_of_composed_ones(tokenizer):
    text = "손흥민은 춘천에서"
    decomposed = unicodedata.normalize("NFD", text)
    assert decomposed != text
    assert tokenizer(decomposed)["input_ids"] == tokenizer(text)["input_ids"]


def test_unknown_characters_are_unknown_one_by_one(tokenizer):
    tokens, offsets = content(tokenizer, "뷁뷁 한뷁국 🦄")
    assert tokens == ["[UNK]", "[UNK]", "한", "[UNK]", "##국", "[UNK]"]
    assert offsets == [(0, 1), (1, 2), (3, 4), (4, 5), (5, 6), (7, 8)]


def test_every_character_of_the_corpus_gets_both_tokens_after_the_special_ones():
    vocabulary = build_character_tokenizer(["나 가", "가나다"]).get_vocab()
    assert sorted(vocabulary, key=vocabulary.get) == [
        *["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        *["가", "나", "다", "##가", "##나", "##다"],
    ]
    assert sorted(vocabulary.values()) == list(range(11))


def test_the_vocabulary_does_not_depend_on_the_order_of_the_corpus():
    assert build_character_tokenizer(TEXTS).get_vocab() == build_character_tokenizer(TEXTS[::-1]).get_vocab()


@pytest.mark.parametrize(("min_frequency", "known"), [(1, "가나다"), (2, "가나"), (3, "가")])
def test_rarer_characters_than_the_minimum_are_unknown(min_frequency, known):
    tokenizer = build_character_tokenizer(iter(["가가가 나", "나다"]), min_frequency)
    assert [token for token in tokenizer.tokenize("가 나 다") if token != "[UNK]"] == list(known)


def test_frequency_counts_a_character_in_all_its_forms():
    tokenizer = build_character_tokenizer(["１", "1", unicodedata.normalize("NFD", "각"), "각"], min_frequency=2)
    assert tokenizer.tokenize("1 각") == ["1", "각"]


@pytest.mark.parametrize(("texts", "minimum"), [([], 1), ([""], 1), ([" \n", "\u3000"], 1), (["가나다"], 2)])
def test_a_corpus_without_frequent_characters_is_an_error(texts, minimum):
    with pytest.raises(ValueError, match=f"no character occurs {minimum} times"):
        build_character_tokenizer(texts, minimum)


def test_special_tokens_stand_around_a_sentence_and_between_two(tokenizer):
    ids = tokenizer("한국")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "한", "##국", "[SEP]"]
    ids = tokenizer("한국", "서울")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "한", "##국", "[SEP]", "서", "##울", "[SEP]"]
    assert {name: getattr(tokenizer, name) for name in SPECIAL_TOKENS} == SPECIAL_TOKENS
    assert tokenizer.num_special_tokens_to_add() == 2


def test_a_batch_is_padded_with_a_mask_and_has_no_token_types(tokenizer):
    batch = tokenizer(["한국", "서울에서"], padding=True, return_tensors="pt")
    assert set(batch) == {"input_ids", "attention_mask"}
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert batch["input_ids"][0, 4:].tolist() == [tokenizer.pad_token_id] * 2


@pytest.mark.parametrize("model_max_length", [8, 512])
def test_truncation_cuts_at_the_maximum_length(model_max_length):
    tokenizer = build_character_tokenizer(TEXTS, model_max_length=model_max_length)
    ids = tokenizer("한국" * 400, truncation=True)["input_ids"]
    assert len(ids) == model_max_length
    assert ids[-1] == tokenizer.sep_token_id
    assert len(tokenizer("한국" * 400, truncation=True, max_length=6)["input_ids"]) == 6


def test_windows_overlap_by_the_stride_and_cover_the_text(tokenizer):
    text = "서울에서 부산까지 기차로"
    encoded = tokenizer(
        text,
        truncation=True,
        max_length=7,
        stride=2,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    windows = ["".join(text[start:end] for start, end in offsets) for offsets in encoded["offset_mapping"]]
    assert windows == ["서울에서부", "서부산까지", "까지기차로"]


@pytest.mark.slow
def test_a_saved_tokenizer_is_loaded_by_auto_tokenizer_where_this_package_is_not(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "saved")
    texts = [*TEXTS, "뷁 ㎞", "좋아요 , 정말 !"]
    loaded = run_without_package(
        f"""
        import json
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained("saved")
        encoded = tokenizer({texts!a}, return_offsets_mapping=True, padding=True)
        decoded = tokenizer.batch_decode(encoded["input_ids"], skip_special_tokens=True)
        print(json.dumps([dict(encoded), decoded, tokenizer.special_tokens_map, tokenizer.model_max_length]))
        """,
        tmp_path,
    )
    encoded = tokenizer(texts, return_offsets_mapping=True, padding=True)
    decoded = tokenizer.batch_decode(encoded["input_ids"], skip_special_tokens=True)
    assert decoded[1] == unicodedata.normalize("NFKC", TEXTS[1])
    assert loaded == json.loads(json.dumps([dict(encoded), decoded, SPECIAL_TOKENS, 512]))
