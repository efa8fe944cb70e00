"""Tests of the conversions between spans, tags and tokens, with tokenizers of three kinds."""

import itertools
import random
import re
import time
import unicodedata

import pytest
from seqeval.metrics.sequence_labeling import get_entities
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import BertProcessing
from transformers import PreTrainedTokenizerFast

from bilstm_crf_hf.alignment import (
    Span,
    character_ranges,
    character_tags,
    entities_of_tokens,
    render,
    scheme_of,
    spans_from_tags,
    spans_from_token_tags,
    split_tag,
    tags_from_spans,
    token_tags,
)
from bilstm_crf_hf.data.inline_marks import parse_inline
from bilstm_crf_hf.data.tokenization import build_character_tokenizer

SENTENCES = [
    "<손흥민:PS>은 <강원도 춘천:LC>에서 <1992년 7월 8일:DT> 태어났다.",
    "<토트넘:OG>에서 뛰는 <손흥민:PS>이 <서울:LC>에 왔다.",
    "<이순신:PS> 장군은 <1545년:DT> <서울 건천동:LC>에서 났다.",
    "<경찰:OG>은 <어제:DT> <부산:LC>에서 <두 명:QT>을 찾았다.",
    "<한국은행:OG>이 금리를 <0.5%:QT> 내렸다고 <8일:DT> 밝혔다.",
    "영화가 정말 재미있어서 또 보고 싶다.",
    "<세종대왕:PS>은 <조선:LC>의 임금이다.",
    "<오후 세 시:TI>에 <광화문:LC>에서 만나자.",
    "<국립국어원:OG>은 <서울 강서구:LC>에 있다.",
    "<김연아:PS>는 <2010년:DT> <밴쿠버:LC>에서 금메달을 땄다.",
    "날씨가 좋아서 <한강:LC>까지 <십 리:QT>를 걸었다.",
    "<정약용:PS>이 <강진:LC>에서 책을 썼다.",
]
AWKWARD = [
    "<1992년 7월 8일:DT>",
    "<1992년  7월 8일:DT>에 <춘천:LC>",
    "<서울:LC><부산:LC>의 <강:LC><강:LC>",
    " <서울:LC> ",
    "<서울 부산:LC>",
    "<십㎞:QT><㎞:QT>",
    "１９<９２년:DT>",
    "<ㅋㅋ:OG> <ㅋ:PS>",
    "<😀:PS><👍🏽:PS> <👨‍👩‍👧:LC>",
    "<大韓民國:LC> <金:PS>",
    unicodedata.normalize("NFD", "<손흥민:PS>과 <각각:QT><값:PS>"),
]
PARSED = [parse_inline(sentence) for sentence in SENTENCES]


def wrap(tokenizer, **special):
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", **special)


@pytest.fixture(scope="module")
def characters():
    return build_character_tokenizer(text for text, _ in PARSED)


@pytest.fixture(scope="module")
def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=220, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator((text for text, _ in PARSED), trainer)
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return wrap(tokenizer, cls_token="[CLS]", sep_token="[SEP]")


@pytest.fixture(scope="module")
def sentencepiece():
    """Return a Unigram tokenizer with Metaspace; the `▁` before a word is mostly a token of its own."""
    texts = "".join([*SENTENCES, *AWKWARD])
    letters = sorted(c for c in set(unicodedata.normalize("NFKC", texts)) if not c.isspace())
    pieces = ["▁", "▁서울", "▁한강", "▁19", *letters]
    vocabulary = [("[PAD]", 0.0), ("[UNK]", 0.0), *((piece, -3.0 - len(piece) / 10) for piece in pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=1))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return wrap(tokenizer)


@pytest.fixture(params=["characters", "wordpiece", "sentencepiece"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def offsets_of(tokenizer, text, **options):
    return tokenizer(text, return_offsets_mapping=True, **options)["offset_mapping"]


def round_trip(tokenizer, text, spans, scheme="BIO"):
    """Convert spans to tags of tokens and back."""
    offsets = offsets_of(tokenizer, text)
    return spans_from_token_tags(text, offsets, token_tags(text, offsets, spans, scheme))


def surfaces(text, spans):
    return [(text[span.start : span.end], span.label) for span in spans]


# Tags and spans


@pytest.mark.parametrize(
    ("tag", "parts"),
    [("O", ("O", "")), ("B-PS", ("B", "PS")), ("E-LC", ("E", "LC")), ("I-date-time", ("I", "date-time"))],
)
def test_split_tag_separates_prefix_and_type(tag, parts):
    assert split_tag(tag) == parts


@pytest.mark.parametrize("tag", ["", "B", "B-", "-PS", "PS", "O-PS", "b-PS", "BPS", "L-PS", "PS-B", "o", "BI-PS"])
def test_a_string_that_is_not_a_tag_is_an_error_that_quotes_it(tag):
    with pytest.raises(ValueError, match=re.escape(repr(tag))):
        split_tag(tag)
    with pytest.raises(ValueError, match=re.escape(repr(tag))):
        spans_from_tags(["O", tag])


@pytest.mark.parametrize("prefixes", ["BI", "BIES"])
def test_spans_equal_those_of_seqeval_for_valid_and_invalid_sequences(prefixes):
    tags = ["O", *(f"{prefix}-{label}" for prefix in prefixes for label in ("PS", "LC"))]
    for length in range(5 if len(prefixes) == 4 else 6):
        for sequence in itertools.product(tags, repeat=length):
            expected = [(start, end + 1, label) for label, start, end in get_entities(list(sequence))]
            assert spans_from_tags(sequence) == expected, sequence


def test_strict_accepts_exactly_the_sequences_whose_inside_tags_continue_an_entity_of_their_type():
    entity = "B-{0} (I-{0} )*(E-{0} )?|S-{0} "
    valid = re.compile(f"(O |{entity.format('PS')}|{entity.format('LC')})*")
    tags = ["O", *(f"{prefix}-{label}" for prefix in "BIES" for label in ("PS", "LC"))]
    for length in range(5):
        for sequence in itertools.product(tags, repeat=length):
            if valid.fullmatch("".join(f"{tag} " for tag in sequence)):
                assert spans_from_tags(sequence, strict=True) == spans_from_tags(sequence)
            else:
                with pytest.raises(ValueError, match="continues no"):
                    spans_from_tags(sequence, strict=True)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["O", "I-PS"], "I-PS at position 1 follows O: it continues no PS entity"),
        (["I-PS"], "I-PS at position 0 follows O"),
        (["B-PS", "I-PS", "I-LC"], "I-LC at position 2 follows I-PS"),
        (["B-PS", "E-PS", "I-PS"], "I-PS at position 2 follows E-PS"),
        (["S-PS", "E-PS"], "E-PS at position 1 follows S-PS"),
    ],
)
def test_strict_errors_name_the_tag_its_position_and_the_tag_before_it(tags, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        spans_from_tags(tags, strict=True)


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("BIO", ["B-PS", "I-PS", "I-PS", "B-PS", "O", "B-LC"]),
        ("BIOES", ["B-PS", "I-PS", "E-PS", "S-PS", "O", "S-LC"]),
    ],
)
def test_adjacent_entities_of_one_type_stay_separate(scheme, tags):
    spans = [Span(0, 3, "PS"), Span(3, 4, "PS"), Span(5, 6, "LC")]
    assert tags_from_spans(spans, 6, scheme) == tags
    assert spans_from_tags(tags, strict=True) == spans


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_spans_from_tags_inverts_tags_from_spans(scheme):
    rng = random.Random(0)
    for _ in range(300):
        length = rng.randrange(12)
        borders = sorted(rng.choices(range(length + 1), k=rng.randrange(6)))
        spans = [Span(a, b, rng.choice(["PS", "LC"])) for a, b in itertools.pairwise(borders) if a < b]
        shuffled = rng.sample(spans, len(spans))
        tags = tags_from_spans(shuffled, length, scheme)
        assert len(tags) == length
        assert spans_from_tags(tags, strict=True) == spans


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([Span(2, 2, "PS")], "PS [2, 2) does not lie within 4"),
        ([Span(3, 2, "PS")], "does not lie within"),
        ([Span(-1, 2, "PS")], "does not lie within"),
        ([Span(3, 5, "LC")], "LC [3, 5) does not lie within 4"),
        ([Span(0, 3, "PS"), Span(2, 4, "LC")], "LC [2, 4) overlaps"),
        ([Span(1, 2, "LC"), Span(0, 4, "PS")], "PS [0, 4) overlaps"),
    ],
)
def test_spans_that_no_tags_can_represent_are_errors(spans, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tags_from_spans(spans, 4)


def test_an_unknown_scheme_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="'IOB1'.*'BIO' or 'BIOES'"):
        tags_from_spans([], 3, "IOB1")


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        (["O", "B-PS", "I-PS"], "BIO"),
        (["O", "B-PS", "S-PS"], "BIOES"),
        (["E-PS"], "BIOES"),
        (["O"], "BIO"),
        ([], "BIO"),
    ],
)
def test_scheme_of_labels(labels, scheme):
    assert scheme_of(labels) == scheme


# Characters that tokens cover


@pytest.mark.parametrize("text", ["", " ", " \t\n "])
def test_a_text_of_white_space_has_no_tags_and_no_entities(tokenizer, text):
    offsets = offsets_of(tokenizer, text)
    assert all(start == end for start, end in character_ranges(text, offsets))
    assert set(token_tags(text, offsets, [])) <= {None}
    assert spans_from_token_tags(text, offsets, ["B-PS"] * len(offsets)) == []


@pytest.mark.parametrize(
    "text",
    [
        "손흥민은  춘천에서   났다.",
        " 앞과 뒤에 빈칸이 있다 ",
        "서울에서 부산까지 약 400㎞이다",
        "１９９２년에 났다",
        "재미있다 ㅋㅋ ㅎㅎㅎ",
        "좋아요 😀👍🏽 👨‍👩‍👧",
        "大韓民國 서울特別市",
        "㈜한국 … ½ ①",
        unicodedata.normalize("NFD", "손흥민은 각각 값을 물었다"),
        unicodedata.normalize("NFD", "뷁 café"),
    ],
)
@pytest.mark.parametrize("name", ["characters", "sentencepiece"])
def test_ranges_partition_the_visible_characters(request, name, text):
    ranges = character_ranges(text, offsets_of(request.getfixturevalue(name), text))
    covered = [i for start, end in ranges for i in range(start, end)]
    assert covered == [i for i, character in enumerate(text) if not character.isspace()]


@pytest.mark.parametrize("text", ["보고 싶다 ㅋㅠㅠ", "감사ㄳ 합니다", "ㄱㅏ나다", "ｶﾞ를 읽다", "ﾊﾝｸﾞﾙ"])
@pytest.mark.parametrize("name", ["characters", "sentencepiece"])
def test_letters_that_normalisation_composes_belong_to_the_token_of_the_composed_character(request, name, text):
    """NFKC composes `ㅋㅠ` to `큐` and `사ㄳ` to `삯`; `tokenizers` returns the offsets of the first letter only."""
    ranges = character_ranges(text, offsets_of(request.getfixturevalue(name), text))
    covered = [i for start, end in ranges for i in range(start, end)]
    assert covered == [i for i, character in enumerate(text) if not character.isspace()]


def test_special_tokens_and_padding_cover_no_character(wordpiece):
    text = "서울에 왔다"
    encoded = wordpiece(
        text, padding="max_length", max_length=16, return_offsets_mapping=True, return_special_tokens_mask=True
    )
    tags = token_tags(text, encoded["offset_mapping"], [Span(0, 2, "LC")])
    assert [tag is None for tag in tags] == [bool(special) for special in encoded["special_tokens_mask"]]
    assert encoded["special_tokens_mask"].count(1) >= 2


def test_ranges_of_sentencepiece_exclude_single_word_marks_and_the_spaces_before_words(sentencepiece):
    text = "강 서울  강"
    assert sentencepiece.tokenize(text) == ["▁", "강", "▁서울", "▁", "▁", "강"]
    offsets = offsets_of(sentencepiece, text)
    assert [text[start:end] for start, end in offsets] == ["강", "강", " 서울", " ", " ", "강"]
    assert character_ranges(text, offsets) == [(0, 0), (0, 1), (2, 4), (5, 5), (6, 6), (6, 7)]


@pytest.mark.parametrize(
    ("text", "offsets", "ranges"),
    [
        ("가나다", [(0, 2), (1, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)]),  # `나` is split into bytes
        ("😀가", [(0, 1), (0, 1), (0, 2)], [(0, 0), (0, 0), (0, 2)]),
        ("❤\ufe0f강", [(0, 1), (2, 3)], [(0, 2), (2, 3)]),  # a mark that the tokenizer drops
        ("서울 강", [(0, 3), (3, 4)], [(0, 2), (3, 4)]),
        ("서울\n강", [(0, 4)], [(0, 4)]),
        ("서울", [(0, 0), (0, 2), (0, 0), (2, 2)], [(0, 0), (0, 2), (0, 0), (2, 2)]),
    ],
)
def test_ranges_neither_overlap_nor_end_in_white_space_for_any_offsets(text, offsets, ranges):
    assert character_ranges(text, offsets) == ranges


def test_of_several_tokens_from_one_character_the_last_one_covers_it(characters):
    text = "삼㎞"
    assert offsets_of(characters, text, add_special_tokens=False) == [(0, 1), (1, 2), (1, 2)]
    assert character_ranges(text, [(0, 1), (1, 2), (1, 2)]) == [(0, 1), (1, 1), (1, 2)]


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\r\n", "\u3000", " \n"])
def test_white_space_after_an_entity_is_not_part_of_it(tokenizer, space):
    text = f"서울{space}부산{space}"
    start = text.index("부산")
    spans = [Span(0, 2, "LC"), Span(start, start + 2, "LC")]
    assert round_trip(tokenizer, text, spans) == spans


def test_parts_of_a_decomposed_character_belong_to_one_token(characters):
    text = unicodedata.normalize("NFD", "각 힣")
    assert len(text) == 7
    assert character_ranges(text, offsets_of(characters, text, add_special_tokens=False)) == [(0, 3), (4, 7)]


@pytest.mark.parametrize("marks", ["\u0301", "\u0301\u0316", "\u0301\u0316\u0327"])
@pytest.mark.parametrize("base", ["a", "\u1100", "ｶ"])
def test_a_run_of_marks_that_the_tokenizer_strips_takes_linear_time(base, marks):
    """The time of `unicodedata.normalize` grows with the square of the length of a run of different marks."""
    text = f"서울 {base}{marks * (30_000 // len(marks))} 강"
    end = len(text) - 2
    begin = time.perf_counter()
    ranges = character_ranges(text, [(0, 2), (3, 4), (end + 1, end + 2)])
    assert time.perf_counter() - begin < 2
    assert ranges == [(0, 2), (3, end), (end + 1, end + 2)]


# Token tags


def expected_after(text, offsets, spans):
    """Return the spans that tokens can represent: each entity is the tokens whose first character it covers.

    This holds for texts and tokenizers whose offsets need no correction.
    """
    kept = []
    for span in spans:
        held = [(start, end) for start, end in offsets if start < end and span.start <= start < span.end]
        if held:
            kept.append(Span(held[0][0], held[-1][1], span.label))
    return kept


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
@pytest.mark.parametrize(("text", "spans"), PARSED)
def test_round_trip_of_sentences_keeps_what_tokens_can_represent(wordpiece, characters, text, spans, scheme):
    assert round_trip(characters, text, spans, scheme) == spans
    assert round_trip(wordpiece, text, spans, scheme) == expected_after(text, offsets_of(wordpiece, text), spans)


def test_the_wordpiece_tokenizer_can_represent_some_entities_and_not_others(wordpiece):
    assert any(round_trip(wordpiece, text, spans) != spans for text, spans in PARSED)
    assert any(round_trip(wordpiece, text, spans) == spans for text, spans in PARSED)


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
@pytest.mark.parametrize("marked", AWKWARD)
@pytest.mark.parametrize("name", ["characters", "sentencepiece"])
def test_round_trip_of_awkward_text_is_the_identity(request, name, marked, scheme):
    tokenizer = request.getfixturevalue(name)
    text, spans = parse_inline(marked)
    assert len(spans) == marked.count("<")
    assert round_trip(tokenizer, text, spans, scheme) == spans


UNITS = [*"가각힣나다서울은는金漢AZz09.,%ㅋㅎ😀한국", "㎞", "１", "㈜", "…", "½", "\uf90a", "👨‍👩‍👧", "👍🏽", "❤️", "é"]
UNITS += [unicodedata.normalize("NFD", syllable) for syllable in "가각힣é"] + [" ", "  ", "\u3000", "\t"]


def random_sentence(rng):
    """Return a text of random units, and entities that begin and end at the edges of visible units."""
    units = [rng.choice(UNITS) for _ in range(rng.randrange(1, 15))]
    starts = [0, *itertools.accumulate(map(len, units))]
    borders = sorted(rng.sample(range(len(units) + 1), min(len(units) + 1, rng.randrange(7))))
    spans = [
        Span(starts[a], starts[b], rng.choice(["PS", "LC"]))
        for a, b in itertools.pairwise(borders)
        if not units[a].isspace() and not units[b - 1].isspace() and rng.random() < 0.7
    ]
    return "".join(units), spans


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_round_trip_of_random_text_through_single_characters_is_the_identity(characters, scheme):
    rng = random.Random(scheme)
    for _ in range(500):
        text, spans = random_sentence(rng)
        assert round_trip(characters, text, spans, scheme) == spans, (text, spans)


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_tags_of_random_text_are_valid_and_a_second_round_trip_changes_nothing(tokenizer, scheme):
    rng = random.Random(scheme)
    for _ in range(300):
        text, spans = random_sentence(rng)
        offsets = offsets_of(tokenizer, text)
        tags = token_tags(text, offsets, spans, scheme)
        assert scheme_of(tag for tag in tags if tag) in ("BIO", scheme)
        tags_of_content = [tag for tag in tags if tag is not None]
        kept = spans_from_tags(tags_of_content, strict=True)
        assert tags_from_spans(kept, len(tags_of_content), scheme) == tags_of_content
        once = spans_from_token_tags(text, offsets, tags)
        assert [span.label for span in once] == [span.label for span in kept]
        assert round_trip(tokenizer, text, once, scheme) == once


def test_a_token_belongs_to_the_entity_that_covers_its_first_character():
    text, offsets = "서울대는 크다", [(0, 3), (3, 4), (5, 6), (6, 7)]
    assert token_tags(text, offsets, [Span(0, 2, "LC")]) == ["B-LC", "O", "O", "O"]
    assert token_tags(text, offsets, [Span(0, 3, "OG"), Span(3, 7, "LC")]) == ["B-OG", "B-LC", "I-LC", "I-LC"]


def test_an_entity_that_begins_inside_a_token_begins_at_the_next_one():
    text, offsets = "신라면세점", [(0, 2), (2, 4), (4, 5)]
    tags = token_tags(text, offsets, [Span(1, 5, "OG")])
    assert tags == ["O", "B-OG", "I-OG"]
    assert surfaces(text, spans_from_token_tags(text, offsets, tags)) == [("면세점", "OG")]


def test_an_entity_that_covers_no_first_character_is_lost_and_its_neighbours_are_kept():
    text, offsets = "한미일", [(0, 2), (2, 3)]
    tags = token_tags(text, offsets, [Span(0, 1, "LC"), Span(1, 2, "LC"), Span(2, 3, "LC")])
    assert tags == ["B-LC", "B-LC"]
    assert surfaces(text, spans_from_token_tags(text, offsets, tags)) == [("한미", "LC"), ("일", "LC")]


def test_entities_of_the_same_type_in_adjacent_tokens_stay_separate_in_bioes():
    text, offsets = "서울부산에", [(0, 2), (2, 4), (4, 5)]
    assert token_tags(text, offsets, [Span(0, 2, "LC"), Span(2, 4, "LC")], "BIOES") == ["S-LC", "S-LC", "O"]


def test_a_single_word_mark_within_an_entity_has_no_tag_and_does_not_split_it(sentencepiece):
    text, spans = parse_inline("<강 서울:LC>은")
    assert sentencepiece.tokenize(text) == ["▁", "강", "▁서울", "은"]
    assert token_tags(text, offsets_of(sentencepiece, text), spans) == [None, "B-LC", "I-LC", "O"]

    text, spans = parse_inline("서울 <강 강:LC>")
    assert sentencepiece.tokenize(text) == ["▁서울", "▁", "강", "▁", "강"]
    assert token_tags(text, offsets_of(sentencepiece, text), spans) == ["O", None, "B-LC", None, "I-LC"]
    assert round_trip(sentencepiece, text, spans) == spans


def test_entities_of_tokens_names_the_tokens_of_each_entity_and_skips_those_without_characters(sentencepiece):
    text = "강 서울은 강"
    assert sentencepiece.tokenize(text) == ["▁", "강", "▁서울", "은", "▁", "강"]
    offsets = offsets_of(sentencepiece, text)
    tags = ["B-PS", "I-PS", "B-LC", "O", "B-DT", "O"]  # a model may tag word marks too
    assert list(entities_of_tokens(text, offsets, tags)) == [((0, 1, "PS"), [0, 1]), ((2, 4, "LC"), [2])]
    tags = [None, "B-PS", "I-PS", "I-LC", None, "I-LC"]
    assert list(entities_of_tokens(text, offsets, tags)) == [((0, 4, "PS"), [1, 2]), ((4, 7, "LC"), [3, 5])]


# Character tags


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["B-OG", "O", "B-LC", "I-LC"], ["B-OG", "I-OG", "I-OG", "O", "O", "B-LC", "I-LC"]),
        (["I-OG", "I-OG", "O", "O"], ["I-OG", "I-OG", "I-OG", "I-OG", "O", "O", "O"]),
        (["I-OG", "I-LC", "O", "O"], ["I-OG", "I-OG", "I-OG", "I-LC", "O", "O", "O"]),
        (["S-OG", "E-LC", "O", "S-LC"], ["B-OG", "I-OG", "I-OG", "I-LC", "O", "O", "B-LC"]),
        (["B-OG", "B-OG", None, "O"], ["B-OG", "I-OG", "I-OG", "B-OG", "O", "O", "O"]),
    ],
)
def test_the_first_character_of_a_token_has_its_tag_and_the_others_continue_it(tags, expected):
    text, offsets = "서울대는 큰데", [(0, 3), (3, 4), (5, 6), (6, 7)]
    assert character_tags(text, offsets, tags) == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["B-LC", "I-LC"], ["B-LC", "I-LC", "I-LC", "I-LC", "I-LC"]),
        (["I-LC", "E-LC"], ["I-LC", "I-LC", "I-LC", "I-LC", "I-LC"]),
        (["B-LC", "B-LC"], ["B-LC", "I-LC", "O", "B-LC", "I-LC"]),
        (["B-LC", "I-OG"], ["B-LC", "I-LC", "O", "I-OG", "I-OG"]),
        (["O", "I-LC"], ["O", "O", "O", "I-LC", "I-LC"]),
    ],
)
def test_a_character_outside_all_tokens_continues_the_entity_around_it(tags, expected):
    assert character_tags("서울\u200b부산", [(0, 2), (3, 5)], tags) == expected


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
@pytest.mark.parametrize("tags_are_of", ["characters", "sentencepiece"])
def test_character_tags_of_random_text_equal_those_of_its_entities(request, tags_are_of, scheme):
    tokenizer = request.getfixturevalue(tags_are_of)
    rng = random.Random(scheme)
    for _ in range(300):
        text, spans = random_sentence(rng)
        offsets = offsets_of(tokenizer, text)
        tags = token_tags(text, offsets, spans, scheme)
        expected = ["O"] * len(text)
        for start, end, label in spans_from_token_tags(text, offsets, tags):
            expected[start:end] = [f"B-{label}"] + [f"I-{label}"] * (end - start - 1)
        visible = [i for i, character in enumerate(text) if not character.isspace()]
        found = character_tags(text, offsets, tags)
        assert len(found) == len(text)
        assert [found[i] for i in visible] == [expected[i] for i in visible], (text, spans)


# Rendering


def test_render_marks_entities_given_in_any_order_and_keeps_the_rest():
    text = "손흥민은 춘천에서 태어났다."
    spans = [Span(5, 7, "LC"), Span(0, 3, "PS")]
    assert render(text, spans) == "<손흥민:PS>은 <춘천:LC>에서 태어났다."
    assert render(text, []) == text
    assert render("서울부산", [Span(2, 4, "LC"), Span(0, 2, "LC")]) == "<서울:LC><부산:LC>"


@pytest.mark.parametrize("marked", SENTENCES)
def test_parse_inline_inverts_render(marked):
    assert render(*parse_inline(marked)) == marked
