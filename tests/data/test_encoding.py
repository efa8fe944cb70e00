import random
import re
from types import SimpleNamespace

import evaluate
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from seqeval.metrics import f1_score
from seqeval_scores import STRICT, seqeval_scores
from sklearn.metrics import f1_score as sklearn_f1_score
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import BertProcessing
from transformers import DataCollatorForTokenClassification, EvalPrediction, PreTrainedTokenizerFast

from bilstm_crf_hf.alignment import Span
from bilstm_crf_hf.data.encoding import EncodedCorpus, best_labels
from bilstm_crf_hf.data.inline_marks import parse_inline
from bilstm_crf_hf.data.tokenization import build_character_tokenizer
from bilstm_crf_hf.evaluation.metrics import EntityScorer
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor

TYPES = ["DT", "LC", "OG", "PS"]
BIO = [*(f"{prefix}-{label}" for label in TYPES for prefix in "BI"), "O"]
BIOES = ["O", *(f"{prefix}-{label}" for prefix in "BIES" for label in TYPES)]
MARKED = [
    "<대한민국 과학기술정보통신부:OG>는 <1992년 7월 8일:DT>  <강원도 춘천:LC>에서 <손흥민:PS>을 만났다.",
    "비가 온다.",
    "<서울:LC><부산:LC>",
    "날씨가 좋아서 멀리까지 걸었다",
    "<손흥민:PS>은 <춘천:LC>에서 태어났다.",
]
ROWS = [parse_inline(marked) for marked in MARKED]
TEXTS, GOLD = [text for text, _ in ROWS], [spans for _, spans in ROWS]


@pytest.fixture(autouse=True)
def metric_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def characters():
    return build_character_tokenizer(TEXTS)


@pytest.fixture(scope="module")
def wordpiece():
    """Entities begin and end inside `통신부는`, `민을` and `민은`, and nowhere else."""
    words = "[PAD] [UNK] [CLS] [SEP] 대한 ##민국 과학 ##기술 ##정보 ##통신부는 1992 ##년 7 ##월 8 ##일 강원 ##도 춘천"
    words += (
        " ##에서 손흥 ##민을 ##민은 만났다 비가 온다 서울 ##부산 날씨 ##가 좋아 ##서 멀리 ##까지 걸었다 태어 ##났다 ."
    )
    words += " 제 ##이차세계 ##대전"
    vocabulary = {word: i for i, word in enumerate(words.split())}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="module")
def sentencepiece():
    """Most words begin with a lone `▁`; there are no special tokens."""
    pieces = ["▁", "▁춘천", "▁7", *sorted({character for text in TEXTS for character in text if character != " "})]
    vocabulary = [("[PAD]", 0.0), ("[UNK]", 0.0), *((piece, -3.0 - len(piece) / 10) for piece in pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=1))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


def parameter_id(value):
    return "BIOES" if value is BIOES else "BIO" if value is BIO else str(value)


def dataset_of(rows, names=BIO):
    """Rows of (text, spans) with BIO tags on every character, white space included."""
    tags = []
    for text, spans in rows:
        tags.append(["O"] * len(text))
        for start, end, label in spans:
            tags[-1][start:end] = [f"B-{label}"] + [f"I-{label}"] * (end - start - 1)
    features = Features({"text": Value("string"), "tags": List(ClassLabel(names=names))})
    ids = [[names.index(tag) for tag in of_row] for of_row in tags]
    return Dataset.from_dict({"text": [text for text, _ in rows], "tags": ids}, features=features)


SENTENCES = dataset_of(ROWS)


def expressible(tokenizer, text, spans):
    """What tokens can say of `spans`: each entity is the tokens whose first character it holds."""
    kept = []
    for span in spans:
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        held = [(start, end) for start, end in offsets if start < end and span.start <= start < span.end]
        if held:
            kept.append(Span(held[0][0], held[-1][1], span.label))
    return kept


def visible_tags(text, spans):
    """BIO tags of the visible characters."""
    tags = {i: "O" for i, character in enumerate(text) if not character.isspace()}
    for start, end, label in spans:
        inside = [i for i in range(start, end) if i in tags]
        tags |= dict.fromkeys(inside, f"I-{label}") | {inside[0]: f"B-{label}"}
    return list(tags.values())


def rectangle(rows, width=0):
    """Lists of different lengths as Trainer hands them on, padded with -100."""
    width = max(width, *map(len, rows))
    return np.array([[*row, *[-100] * (width - len(row))] for row in rows])


def limits(tokenizer, stride):
    """Every limit from the smallest one to that which splits nothing, and none."""
    special = tokenizer.num_special_tokens_to_add()
    longest = max(len(ids) for ids in tokenizer(TEXTS)["input_ids"])
    return [*range(stride + special + 1, longest + 2), None]


# Inputs


def test_inputs_hold_the_ids_and_labels_of_tokens_in_order_of_length(characters):
    corpus = EncodedCorpus(
        dataset_of([("비가 온다", []), ("서울에", [Span(0, 2, "LC")])]), BiLSTMCRFProcessor(characters), BIO
    )
    assert corpus.inputs.column_names == ["input_ids", "attention_mask", "labels"]
    assert corpus.inputs["input_ids"][:] == characters(["서울에", "비가 온다"])["input_ids"]
    assert corpus.inputs["attention_mask"][:] == [[1] * 5, [1] * 6]
    b, i, o = (BIO.index(label) for label in ("B-LC", "I-LC", "O"))
    assert corpus.inputs["labels"][:] == [[-100, b, i, o, -100], [-100, o, o, o, o, -100]]


def test_labels_follow_the_scheme_and_the_order_of_the_models_labels(characters):
    corpus = EncodedCorpus(
        dataset_of([("서울 강은", [Span(0, 2, "LC"), Span(3, 4, "LC")])]), BiLSTMCRFProcessor(characters), BIOES
    )
    tags = [BIOES[i] for i in corpus.inputs["labels"][0][1:-1]]
    assert tags == ["B-LC", "E-LC", "S-LC", "O"]


@pytest.mark.parametrize("max_length", [8, 20, None])
def test_rows_are_in_order_of_length_and_entities_in_order_of_the_data_set(characters, max_length):
    corpus = EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(characters), BIO, max_length, stride=4)
    lengths = [len(ids) for ids in corpus.inputs["input_ids"]]
    assert lengths == sorted(lengths)
    assert max(lengths) <= (max_length or 512)
    assert corpus.texts == TEXTS
    assert [[span.label for span in spans][:1] for spans in corpus.decode(corpus.inputs["labels"][:])] == [
        ["OG"],
        [],
        ["LC"],
        [],
        ["PS"],
    ]


def test_bert_tokenizers_give_no_token_types(wordpiece):
    assert "token_type_ids" not in EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(wordpiece), BIO).inputs.column_names


def test_white_space_at_the_edges_of_an_entity_is_no_part_of_it(characters):
    """Two entities in KLUE-NER begin with a space."""
    rows = [("나는 서울 에", [Span(2, 6, "LC")]), ("서울 에", [Span(2, 3, "LC")])]
    corpus = EncodedCorpus(dataset_of(rows), BiLSTMCRFProcessor(characters), BIO)
    assert corpus.spans == [[Span(3, 5, "LC")], []]
    assert corpus.decode(corpus.inputs["labels"][:]) == corpus.spans


# Windows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "stride"), [(BIO, 1), (BIO, 2), (BIO, 20), (BIOES, 2), (BIOES, 7)], ids=parameter_id
)
def test_gold_labels_in_windows_of_any_length_give_the_gold_entities_back(characters, labels, stride):
    for max_length in limits(characters, stride):
        corpus = EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(characters), labels, max_length, stride)
        assert corpus.decode(corpus.inputs["labels"][:]) == GOLD, max_length


@pytest.mark.parametrize(("labels", "stride"), [(BIO, 1), (BIO, 4), (BIOES, 2), (BIOES, 5)], ids=parameter_id)
def test_gold_labels_of_wordpiece_tokens_give_what_tokens_can_express(wordpiece, labels, stride):
    expected = [expressible(wordpiece, *row) for row in ROWS]
    assert expected != GOLD
    for max_length in limits(wordpiece, stride):
        corpus = EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(wordpiece), labels, max_length, stride)
        assert corpus.decode(corpus.inputs["labels"][:]) == expected, max_length


def test_gold_labels_of_sentencepiece_tokens_give_the_gold_entities_back(sentencepiece):
    """A lone `▁` stands for no character: its label is unknown, -100, though it is no special token."""
    for max_length in limits(sentencepiece, stride=4):
        corpus = EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(sentencepiece), BIO, max_length, stride=4)
        assert corpus.decode(corpus.inputs["labels"][:]) == GOLD, max_length


def test_an_entity_across_the_border_of_windows_is_one(characters):
    rows = [("비가 강원도 춘천에서 온다", [Span(3, 9, "LC")])]
    corpus = EncodedCorpus(dataset_of(rows), BiLSTMCRFProcessor(characters), BIO, max_length=8, stride=4)
    windows = ["비가강원도춘", "강원도춘천에", "도춘천에서온", "천에서온다"]
    decoded = {"".join(characters.convert_ids_to_tokens(ids)[1:-1]) for ids in corpus.inputs["input_ids"]}
    assert {window.replace("##", "") for window in decoded} == set(windows)
    assert corpus.decode(corpus.inputs["labels"][:]) == [[Span(3, 9, "LC")]]


@pytest.mark.parametrize(("labels", "stride"), [(BIO, 1), (BIO, 2), (BIOES, 2)], ids=parameter_id)
def test_each_window_speaks_for_some_of_the_tokens_that_two_share_however_long_these_are(wordpiece, labels, stride):
    """The last tag of a window knows nothing of what follows, so that the next window has to speak for its token."""
    text, spans = parse_inline("비가 <제이차세계대전 제이차세계대전:DT>에서 온다")
    assert wordpiece.tokenize(text)[1:4] == ["제", "##이차세계", "##대전"]
    for max_length in range(stride + 3, 12):
        corpus = EncodedCorpus(dataset_of([(text, spans)]), BiLSTMCRFProcessor(wordpiece), labels, max_length, stride)
        assert corpus.decode(corpus.inputs["labels"][:]) == [spans], max_length


@pytest.mark.parametrize("side", ["left", "right"])
def test_windows_may_be_counted_from_either_end(side):
    tokenizer = build_character_tokenizer(TEXTS)
    tokenizer.truncation_side = side
    corpus = EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(tokenizer), BIO, max_length=24, stride=16)
    assert corpus.split_sentences == 1
    assert corpus.decode(corpus.inputs["labels"][:]) == GOLD


@pytest.mark.parametrize("max_length", [7, 10, 16])
def test_no_window_begins_inside_an_entity(characters, max_length):
    corpus = EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(characters), BIO, max_length, stride=3)
    assert not any(BIO[labels[1]].startswith("I-") for labels in corpus.inputs["labels"][:])


@pytest.mark.parametrize(("max_length", "split"), [(6, 4), (8, 3), (18, 1), (60, 0), (None, 0)])
def test_split_sentences_counts_sentences_and_not_windows(characters, max_length, split):
    lengths = [len(ids) for ids in characters(TEXTS)["input_ids"]]
    assert split == sum(length > (max_length or 512) for length in lengths)
    assert EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(characters), BIO, max_length, stride=2).split_sentences == split


def test_the_default_limit_is_the_tokenizers():
    tokenizer = build_character_tokenizer(TEXTS, model_max_length=12)
    corpus = EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(tokenizer), BIO, stride=8)
    assert max(len(ids) for ids in corpus.inputs["input_ids"]) == 12
    assert corpus.split_sentences == 3


def test_a_tokenizer_without_a_limit_splits_nothing(wordpiece):
    assert wordpiece.model_max_length > 2**31
    assert EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(wordpiece), BIO).split_sentences == 0


# Context

CONTEXTS = [
    ("비가 온다. ", " 서울에서 춘천까지 걸었다"),
    ("서울 부산 춘천 ", ""),
    ("", " 부산은"),
    ("", ""),
    ("멀리 서울에서 ", " 만났다.  "),
]
IN_CONTEXT = SENTENCES
for column, texts_around in zip(("before", "after"), zip(*CONTEXTS)):
    IN_CONTEXT = IN_CONTEXT.add_column(column, list(texts_around))


@pytest.mark.parametrize("name", ["characters", "wordpiece", "sentencepiece"])
def test_the_context_is_read_with_a_sentence_and_its_labels_are_unknown(request, name):
    tokenizer = request.getfixturevalue(name)
    corpus = EncodedCorpus(IN_CONTEXT, BiLSTMCRFProcessor(tokenizer), BIO)
    alone = EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(tokenizer), BIO)
    joined = [before + text + after for (before, after), text in zip(CONTEXTS, TEXTS, strict=True)]
    encoded = tokenizer(joined, return_offsets_mapping=True)
    order = sorted(range(5), key=lambda i: len(encoded["input_ids"][i]))
    assert corpus.inputs["input_ids"][:] == [encoded["input_ids"][i] for i in order]
    known = [[label for label in row if label != -100] for row in corpus.inputs["labels"][:]]
    own = {tuple(label for label in row if label != -100) for row in alone.inputs["labels"][:]}
    assert set(map(tuple, known)) == own
    for i, labels in zip(order, corpus.inputs["labels"][:], strict=True):
        first, last = len(CONTEXTS[i][0]), len(CONTEXTS[i][0] + TEXTS[i])
        for (start, end), label in zip(encoded["offset_mapping"][i], labels, strict=True):
            assert label == -100 or (joined[i][start:end].strip() and first < end and start < last)
    assert (corpus.texts, corpus.spans) == (alone.texts, alone.spans) == (TEXTS, GOLD)


@pytest.mark.parametrize("name", ["characters", "wordpiece"])
@pytest.mark.parametrize("labels", [BIO, BIOES], ids=parameter_id)
def test_an_oracle_is_right_whatever_it_says_of_the_context(request, name, labels):
    tokenizer = request.getfixturevalue(name)
    expected = [expressible(tokenizer, *row) for row in ROWS]
    sentences = dataset_of(list(zip(TEXTS, expected)))
    for column in ("before", "after"):
        sentences = sentences.add_column(column, IN_CONTEXT[column][:])
    for max_length in (None, 40, 20, 12, 9):
        corpus = EncodedCorpus(sentences, BiLSTMCRFProcessor(tokenizer), labels, max_length, stride=4)
        gold = corpus.inputs["labels"][:]
        assert all(any(label != -100 for label in row) for row in gold)
        for said in (-100, labels.index("O"), labels.index("B-LC"), labels.index("I-OG")):
            predictions = [[said if label == -100 else label for label in row] for row in gold]
            found = corpus.decode(predictions)
            assert found == (expected if said != -100 or name == "characters" else found), (max_length, said)
            scores = EntityScorer(corpus)(EvalPrediction(predictions=rectangle(predictions), label_ids=rectangle(gold)))
            assert scores["f1"] == 1, (max_length, said)
        assert corpus.split_sentences == 0 or max_length


@pytest.mark.parametrize(("labels", "continued"), [(BIO, "I-LC"), (BIOES, "I-LC"), (BIOES, "E-LC")], ids=str)
def test_a_predicted_entity_that_begins_in_the_context_begins_with_the_sentence(characters, labels, continued):
    sentence = dataset_of([("강은", [Span(0, 1, "LC")])]).add_column("before", ["서울 "]).add_column("after", [" 서울"])
    corpus = EncodedCorpus(sentence, BiLSTMCRFProcessor(characters), labels)
    gold = rectangle(corpus.inputs["labels"][:])
    for before, is_right in (("B-LC", True), ("I-LC", True), ("O", False), ("B-PS", False)):
        tags = ["O", "O", before, continued, "O", "O", "O", "O"]
        predictions = np.array([[labels.index(tag) for tag in tags]])
        assert corpus.decode(predictions) == [[Span(0, 1, "LC")]]
        scores = EntityScorer(corpus)(EvalPrediction(predictions=predictions, label_ids=gold))
        assert scores["f1"] == is_right  # else an inner tag that continues nothing, which strict scores ignore


def test_rows_are_encoded_again_if_the_context_differs(characters, monkeypatch):
    calls = []
    EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(characters), BIO, stride=29)  # the tokenizer keeps its truncation
    encode = EncodedCorpus._encode
    monkeypatch.setattr(EncodedCorpus, "_encode", lambda self: calls.append(1) or encode(self))
    for _ in range(2):
        for dataset in (dataset_of(ROWS[:1]), dataset_of(ROWS[:1]).add_column("after", [" 비 온다"])):
            dataset = dataset if "before" in dataset.column_names else dataset.add_column("before", [""])
            EncodedCorpus(dataset, BiLSTMCRFProcessor(characters), BIO, stride=29)
    assert len(calls) == 2


@pytest.mark.parametrize("max_length", [None, 60])
def test_an_oracle_is_right_on_odd_words(max_length):
    """Words of 5,000 characters, of mixed scripts, of marks and of spaces that are no white space to a tokenizer."""
    words = ["a" * 5000, "Seoul서울京都", "مرحبا", "👨\u200d👩\u200d👧", "e\u0301", "\u200b", "x" * 4999, "NewYork"]
    text, spans = " ".join(words), [Span(0, 5000, "LC"), Span(5001, 5010, "LC"), Span(5011, 5016, "PS")]
    spans.append(Span(text.index("e\u0301"), text.index("NewYork") - 1, "OG"))
    rows = dataset_of([(text, spans), ("서울", [Span(0, 2, "LC")])])
    corpus = EncodedCorpus(rows, BiLSTMCRFProcessor(build_character_tokenizer([text, "서울"])), BIO, max_length)
    labels = corpus.inputs["labels"][:]
    assert corpus.decode(labels) == [spans, [Span(0, 2, "LC")]]
    scores = EntityScorer(corpus)(EvalPrediction(predictions=rectangle(labels), label_ids=rectangle(labels)))
    assert scores["f1"] == 1


# Decoding


def test_predictions_may_be_padded(characters):
    corpus = EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(characters), BIO, max_length=20, stride=17)
    batch = DataCollatorForTokenClassification(characters)(corpus.inputs.to_list())
    assert batch["labels"].shape[1] == 20
    assert corpus.decode(rectangle(batch["labels"].tolist(), width=25)) == corpus.decode(corpus.inputs["labels"][:])


def test_sentences_without_an_entity_or_without_anything_visible_have_none(characters):
    corpus = EncodedCorpus(dataset_of([("비가 온다", []), ("   ", []), ("", [])]), BiLSTMCRFProcessor(characters), BIO)
    assert corpus.decode(corpus.inputs["labels"][:]) == [[], [], []]
    assert EntityScorer(corpus).gold == corpus.predicted_tags(corpus.inputs["labels"][:]) == [["O"] * 4, [], []]


def test_labels_predicted_on_special_tokens_say_nothing(characters):
    corpus = EncodedCorpus(dataset_of([("서울에", [])]), BiLSTMCRFProcessor(characters), BIO)
    b, i, o = (BIO.index(label) for label in ("B-LC", "I-LC", "O"))
    assert corpus.decode([[b, i, i, o, b]]) == [[Span(0, 2, "LC")]]


def test_the_name_of_a_special_token_in_a_text_is_no_part_of_the_sequence(characters):
    """The models leave special ids out wherever they stand, and predict -100 there."""
    corpus = EncodedCorpus(dataset_of([("서울[SEP]에", [])]), BiLSTMCRFProcessor(characters), BIO)
    b, i, o = (BIO.index(label) for label in ("B-LC", "I-LC", "O"))
    ids = corpus.inputs["input_ids"][0]
    predictions = [-100 if token in (characters.cls_token_id, characters.sep_token_id) else o for token in ids]
    predictions[1:3] = [b, i]
    assert predictions.count(-100) == 3
    assert corpus.decode([predictions]) == [[Span(0, 2, "LC")]]


@pytest.mark.parametrize("max_length", [9, None])
def test_character_tags_leave_white_space_out(characters, max_length):
    corpus = EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(characters), BIO, max_length, stride=4)
    expected = [visible_tags(*row) for row in ROWS]
    assert expected[2] == ["B-LC", "I-LC", "B-LC", "I-LC"]
    assert EntityScorer(corpus).gold == corpus.predicted_tags(corpus.inputs["labels"][:]) == expected


@pytest.mark.parametrize("dropped", ["\u200b", "\xad", "\ufeff", "\x07"])
def test_a_character_that_the_tokenizer_drops_does_not_cut_an_entity(wordpiece, dropped):
    """BertNormalizer takes zero-width spaces, soft hyphens and control characters out of the text."""
    text = f"서울{dropped}부산"
    corpus = EncodedCorpus(dataset_of([(text, [Span(0, 5, "LC")])]), BiLSTMCRFProcessor(wordpiece), BIO)
    labels = rectangle(corpus.inputs["labels"][:])
    assert (labels != -100).sum() == 2
    assert corpus.decode(labels) == [[Span(0, 5, "LC")]]
    assert EntityScorer(corpus)(EvalPrediction(predictions=labels, label_ids=labels))["f1"] == 1


# Errors


def test_a_slow_tokenizer_is_an_error():
    class SlowTokenizer(SimpleNamespace):
        is_fast = False

    with pytest.raises(ValueError, match="SlowTokenizer gives no offsets.*fast tokenizer"):
        BiLSTMCRFProcessor(SlowTokenizer())


def test_entity_types_that_the_model_does_not_know_are_an_error_that_names_them(characters):
    labels, unknown = ["B-PS", "I-PS", "B-DT", "I-DT", "O"], "B-LC, B-OG, I-LC, I-OG"
    with pytest.raises(ValueError, match=re.escape(f"no label for {unknown}; its labels are {', '.join(labels)}")):
        EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(characters), labels)


@pytest.mark.parametrize("missing", ["I-PS", "O"])
def test_any_other_label_that_the_model_does_not_know_is_an_error_too(characters, missing):
    with pytest.raises(ValueError, match=f"no label for {missing}"):
        EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(characters), [label for label in BIO if label != missing])


def test_a_type_that_no_sentence_has_may_be_unknown_to_the_model(characters):
    rows = [("서울에", [Span(0, 2, "LC")])]
    corpus = EncodedCorpus(dataset_of(rows, names=BIO), BiLSTMCRFProcessor(characters), ["O", "B-LC", "I-LC"])
    assert corpus.decode(corpus.inputs["labels"][:]) == [[Span(0, 2, "LC")]]


@pytest.mark.parametrize(("max_length", "stride"), [(10, 8), (10, 9), (10, -1), (10, 0), (3, 1)])
def test_a_stride_that_leaves_no_room_for_new_tokens_is_an_error(characters, max_length, stride):
    with pytest.raises(ValueError, match=f"stride is {stride}: windows of {max_length} tokens, 2 of them special"):
        EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(characters), BIO, max_length, stride)
    stride = max(stride, 1)
    assert len(EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(characters), BIO, stride + 3, stride).inputs) > len(ROWS)


@pytest.mark.parametrize("max_length", [2, 1, 0, -5])
def test_a_limit_that_special_tokens_fill_is_an_error(characters, max_length):
    with pytest.raises(ValueError, match=f"a limit of {max_length} tokens leaves no room for a text beside 2 special"):
        EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(characters), BIO, max_length, 0)


# Scores


def guesses(rng):
    """Random predicted entities of each sentence, half of the gold ones among them."""
    predicted = []
    for text, spans in ROWS:
        kept = [span for span in spans if rng.random() < 0.5]
        for start in range(0, len(text) - 3, 4):
            span = Span(start, start + rng.randrange(1, 4), rng.choice(TYPES))
            clear = all(span.end <= other.start or other.end <= span.start for other in kept)
            if clear and rng.random() < 0.4 and not text[span.start].isspace() and not text[span.end - 1].isspace():
                kept.append(span)
        predicted.append(sorted(kept))
    return predicted


@pytest.mark.parametrize("labels", [BIO, BIOES], ids=parameter_id)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["characters", "wordpiece"])
def test_scores_are_those_of_seqeval_and_sklearn_on_characters(request, name, labels, seed):
    tokenizer = request.getfixturevalue(name)
    guessed = guesses(random.Random(seed))
    corpus = EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(tokenizer), labels)
    predicting = EncodedCorpus(dataset_of(list(zip(TEXTS, guessed))), BiLSTMCRFProcessor(tokenizer), labels)
    gold_ids, ids = corpus.inputs["labels"][:], predicting.inputs["labels"][:]
    scores = EntityScorer(corpus)(EvalPrediction(predictions=rectangle(ids, 60), label_ids=rectangle(gold_ids, 60)))

    gold = [visible_tags(*row) for row in ROWS]
    predicted = [visible_tags(text, expressible(tokenizer, text, spans)) for text, spans in zip(TEXTS, guessed)]
    flat_gold, flat = (sum(tags, []) for tags in (gold, predicted))
    tokens = [[[labels[i] for i in row if i != -100] for row in rows] for rows in (gold_ids, ids)]
    expected = seqeval_scores(gold, predicted) | {
        "klue_entity_macro_f1": f1_score(gold, predicted, average="macro", **STRICT),
        "klue_char_macro_f1": sklearn_f1_score(flat_gold, flat, labels=BIO, average="macro", zero_division=1),
        "token_f1": f1_score(*tokens),
    }
    assert 0 < expected["f1"] < 1
    assert {key: scores[key] for key in expected} == pytest.approx(expected, abs=1e-12)


def test_scores_do_not_depend_on_how_sentences_are_split(characters):
    guessed = guesses(random.Random(1))
    scores = []
    for max_length in (None, 30):
        corpora = [
            EncodedCorpus(dataset_of(list(zip(TEXTS, s))), BiLSTMCRFProcessor(characters), BIO, max_length, 16)
            for s in (GOLD, guessed)
        ]
        gold, predicted = (rectangle(corpus.inputs["labels"][:]) for corpus in corpora)
        scores.append(EntityScorer(corpora[0])(EvalPrediction(predictions=predicted, label_ids=gold)))
        del scores[-1]["token_f1"]  # counts the tokens in an overlap twice
    assert scores[0] == scores[1]


def test_scores_see_that_entities_end_inside_tokens_and_token_f1_does_not(wordpiece):
    corpus = EncodedCorpus(SENTENCES, BiLSTMCRFProcessor(wordpiece), BIO)
    labels = rectangle(corpus.inputs["labels"][:])
    scores = EntityScorer(corpus)(EvalPrediction(predictions=labels, label_ids=labels))
    right = sum(a == b for text, spans in ROWS for a, b in zip(spans, expressible(wordpiece, text, spans)))
    assert scores["token_f1"] == 1
    assert scores["f1"] == pytest.approx(right / sum(map(len, GOLD)))
    assert scores["f1"] < 1


def test_inside_labels_that_continue_nothing_are_wrong_in_strict_scores_and_right_in_default_ones(characters):
    """A model without constraints may predict them; `TaggingMetric` and klue_baseline tell them from an entity."""
    corpus = EncodedCorpus(dataset_of([("서울에", [Span(0, 2, "LC")])]), BiLSTMCRFProcessor(characters), BIO)
    labels = rectangle(corpus.inputs["labels"][:])
    predictions = np.where(labels == BIO.index("B-LC"), BIO.index("I-LC"), labels)
    scores = EntityScorer(corpus)(EvalPrediction(predictions=predictions, label_ids=labels))
    assert scores["default_f1"] == scores["token_f1"] == 1
    assert scores["f1"] == 0


def test_a_type_that_occurs_on_neither_side_counts_as_right_in_the_character_f1(characters):
    """As in klue_baseline, whose macro average is over all labels of the model."""
    corpus = EncodedCorpus(dataset_of([("서울에", [Span(0, 2, "LC")])]), BiLSTMCRFProcessor(characters), BIO)
    labels = rectangle(corpus.inputs["labels"][:])
    nothing = np.where(labels == -100, -100, BIO.index("O"))
    scores = EntityScorer(corpus)(EvalPrediction(predictions=nothing, label_ids=labels))
    assert scores["klue_char_macro_f1"] == pytest.approx((6 * 1 + 2 * 0 + 0.5) / 9)


# Outputs of models


def test_best_labels_of_a_crf_are_its_path_and_of_others_the_most_probable():
    logits = torch.tensor([[[0.1, 0.9], [0.8, 0.2]]])
    path = torch.tensor([[1, 1]])
    assert best_labels((logits, path), torch.tensor([[0, 0]])) is path
    assert best_labels(logits, torch.tensor([[0, 0]])).tolist() == [[1, 0]]
    assert best_labels(logits.numpy(), np.array([[0, 0]])).tolist() == [[1, 0]]
