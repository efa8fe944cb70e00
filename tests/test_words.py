"""Taggers of words: their features by brute force, and their output alone, in a batch, saved and exported."""

import random

import pytest
import torch
from clean_process import run_without_package
from datasets import ClassLabel, Dataset, Features, List, Value
from tokenizers import Tokenizer, models
from torch import nn
from torch.testing import assert_close
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerFast, TokenClassificationPipeline

from bilstm_crf_hf import (
    BiLSTMCRFConfig,
    BiLSTMCRFForTokenClassification,
    BiLSTMCRFTokenClassificationPipeline,
    BiLSTMForPreTraining,
    BiLSTMForSequenceClassification,
)
from bilstm_crf_hf.alignment import Span, spans_from_tags, tags_from_spans, within_words
from bilstm_crf_hf.data.encoding import EncodedCorpus, offsets_of_words
from bilstm_crf_hf.data.tokenization import UNKNOWN, build_character_tokenizer
from bilstm_crf_hf.inference.onnx_inference import OnnxPipeline
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor
from bilstm_crf_hf.token_table import CAPITAL, DIGIT, FURTHER_CAPITAL, LETTER, SIGN, form_of
from bilstm_crf_hf.training.embeddings import word_hashes

LABELS = ["B-LOC", "I-LOC", "B-PER", "I-PER", "O"]
TEXTS = ["Anna Kovacs saw Rome", "on 1996-08-22 , U.S. McDonald's", "a", "", "ROME rome Rome 猫 x1y", "서울 Seoul"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_character_tokenizer([text.replace("猫", "") for text in TEXTS], unit="words")


def new_model(tokenizer: PreTrainedTokenizerFast, labels: list[str] = LABELS, **config):
    """Return a tagger of words with random weights, also those that begin at zero."""
    torch.manual_seed(0)
    ids = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    sizes = {"hidden_size": 16, "word_buckets": 997, "num_filters": 7, "word_embedding_size": 5} | config
    model = BiLSTMCRFForTokenClassification.from_tokenizer(tokenizer, unit="words", **ids, **sizes)
    nn.init.normal_(model.bilstm.features.hash_embeddings.weight)
    nn.init.normal_(model.crf.transitions)
    return model.eval()


@pytest.fixture(scope="module")
def model(tokenizer):
    return new_model(tokenizer)


def encode(tokenizer, texts):
    return dict(tokenizer(texts, padding=True, return_tensors="pt"))


def words_of(tokenizer, row: list[int]) -> list[list[int]]:
    """Return the ids of each word of a row, from the prefixes of its tokens."""
    words: list[list[int]] = []
    for i in row:
        token = tokenizer.convert_ids_to_tokens(i)
        if token in tokenizer.all_special_tokens:
            continue
        if not words or not token.startswith("##"):
            words.append([])
        words[-1].append(i)
    return words


def test_words_are_pooled_as_one_by_one(model, tokenizer):
    """The convolution, the hashes and the shapes of all words in a batch, against a loop over words and characters."""
    features, batch = model.bilstm.features, encode(tokenizer, TEXTS)
    sequences = model.bilstm.sequences(batch["input_ids"], batch["attention_mask"])
    table = features.token_table[batch["input_ids"]]
    pooled = features.convolve(batch["input_ids"], sequences)
    shapes, hashes = features.shapes(table, sequences), features.hashes(table, sequences)
    filters = features.filters.weight.view(3, 7, -1)  # before, at, behind
    assert sequences.lengths.tolist() == [4, 6, 1, 0, 5, 2]
    for b, row in enumerate(batch["input_ids"].tolist()):
        for t, word in enumerate(words_of(tokenizer, row)):
            letters = [tokenizer.convert_ids_to_tokens(i).removeprefix("##") for i in word]
            vectors = [features.word_embeddings.weight[i] for i in word]
            outputs = [
                sum(filters[j] @ vectors[i + j - 1] for j in range(3) if 0 <= i + j - 1 < len(word))
                for i in range(len(word))
            ]
            assert_close(pooled[t, b], torch.stack(outputs).amax(0))
            expected = {CAPITAL * letters[0].isupper(), FURTHER_CAPITAL * any(map(str.isupper, letters[1:]))}
            expected |= {LETTER * any(c.isalpha() and not c.isupper() for c in letters)}
            expected |= {DIGIT * any(map(str.isdigit, letters)), SIGN * any(not c.isalnum() for c in letters)}
            assert shapes[t, b] == sum(expected)
            if UNKNOWN not in letters:
                form = form_of("".join(letters))
                assert hashes[t, b, 0] == word_hashes(tokenizer, ["".join(letters)])
                if all(c in tokenizer.get_vocab() for c in form):
                    assert hashes[t, b, 1] == word_hashes(tokenizer, [form])


def test_training_and_tagging_multiply_the_same(tokenizer):
    """Dropout aside, the products of characters are those of their occurrences."""
    model = new_model(tokenizer, character_dropout=0.0, locked_dropout=0.0, ngram_dropout=0.0, word_dropout=0.0)
    batch = encode(tokenizer, TEXTS)
    emissions, _ = model.emissions(**batch)
    assert_close(model.train().emissions(**batch)[0], emissions)


def test_different_words_have_different_hashes(tokenizer):
    """Anagrams, prefixes and repetitions, too; as few collisions as a random function into 2^32 has."""
    letters = random.Random(0)
    words = sorted({"".join(letters.choices("Aanos", k=letters.randint(1, 9))) for _ in range(50_000)})
    hashes = word_hashes(tokenizer, words)
    assert len(hashes.unique()) == len(words) > 20_000
    buckets = (hashes ^ (hashes >> 15)) % len(words)
    assert abs(len(buckets.unique()) / len(words) - (1 - 1 / torch.e)) < 0.01


def test_the_forms_of_a_word_share_a_hash(model, tokenizer):
    features, batch = model.bilstm.features, encode(tokenizer, ["rome Rome ROME 1996-08-22 0000-00-00"])
    sequences = model.bilstm.sequences(**batch)
    word, form = features.hashes(features.token_table[batch["input_ids"]], sequences)[:, 0].unbind(-1)
    assert len(word.unique()) == 5
    assert form.tolist() == [word[0]] * 3 + [word[4]] * 2


def test_a_word_that_training_has_not_met_adds_nothing(tokenizer):
    model = BiLSTMCRFForTokenClassification.from_tokenizer(tokenizer, unit="words", num_labels=2)
    assert not model.bilstm.features.hash_embeddings.weight.any()


def test_texts_are_tagged_alone_as_in_a_batch(model, tokenizer):
    batch = encode(tokenizer, TEXTS)
    together = model(**batch)
    for i, text in enumerate(TEXTS):
        alone = model(**encode(tokenizer, [text]))
        length = alone.predictions.shape[1]
        assert (together.predictions[i, :length] == alone.predictions[0]).all()
        assert (together.predictions[i, length:] == -100).all()
        assert_close(together.logits[i, :length], alone.logits[0], atol=1e-5, rtol=1e-5)
        assert_close(together.path_log_probs[i, :length], alone.path_log_probs[0], atol=1e-5, rtol=1e-5)


def test_tokens_that_are_added_are_words(tokenizer):
    model = new_model(tokenizer)
    size = len(tokenizer)
    model.resize_token_embeddings(size + 1)
    row = [*tokenizer(["Rome"], add_special_tokens=False)["input_ids"][0], size, size]
    assert model.bilstm.sequences(torch.tensor([row])).lengths.tolist() == [3]


def test_left_padding_changes_nothing(model, tokenizer):
    right = encode(tokenizer, TEXTS[:2])
    pad = right["attention_mask"][0].eq(0).sum()
    left = {name: rows.clone() for name, rows in right.items()}
    for name in left:
        left[name][0] = rows.roll(int(pad)) if (rows := right[name][0]) is not None else rows
    assert (model(**left).predictions[0].roll(-int(pad)) == model(**right).predictions[0]).all()


@pytest.mark.parametrize("token", ["[SEP]", "a"])
def test_a_token_outside_of_the_sequence_separates_words(model, tokenizer, token):
    """A special token, or one that is masked, within a word: what it is does not matter."""
    ids = tokenizer(["Anna"])["input_ids"][0]
    place = tokenizer.convert_tokens_to_ids(token)
    row = torch.tensor([[*ids[:3], place, *ids[3:]]])  # An Xna
    batch = {"input_ids": row, "attention_mask": torch.ones_like(row).index_fill(1, torch.tensor([3]), 0)}
    apart = encode(tokenizer, ["An"])["input_ids"][0, 1:-1].tolist(), ids[3:5]
    sequences = model.bilstm.sequences(**batch)
    assert sequences.lengths.tolist() == [2]
    features = model.bilstm.features
    pooled = features.convolve(row, sequences)[:, 0]
    for word, expected in zip(apart, pooled, strict=True):
        alone = torch.tensor([word])
        assert_close(features.convolve(alone, model.bilstm.sequences(alone))[0, 0], expected)
    if token == "[SEP]":
        offsets = [(0, 0), (0, 1), (1, 2), (2, 7), (7, 8), (8, 9), (0, 0)]
        (ranges,) = offsets_of_words(tokenizer, row.tolist(), [offsets])
        assert {i: pair for i, pair in enumerate(ranges) if pair[0] < pair[1]} == {1: (0, 2), 4: (7, 9)}
    exported = OnnxPipeline.__new__(OnnxPipeline)
    exported.settings = {"word_start_ids": features.token_table[:, 1].nonzero()[:, 0].tolist()}
    begins = exported._units(row.numpy(), sequences.tokens.chosen.numpy())
    assert begins.tolist() == sequences.chosen.tolist()


def test_the_chain_runs_over_words(model, tokenizer):
    """The loss is that of the chain of words: labels behind the first token of a word do not matter."""
    batch = encode(tokenizer, TEXTS[:1])
    emissions, sequences = model.emissions(**batch)
    tags = torch.tensor([2, 3, 4, 0])
    labels = torch.full_like(batch["input_ids"], -100)
    labels[0, sequences.order[0]] = tags
    expected = -model.crf(emissions, tags[:, None], sequences.mask)
    assert_close(model(**batch, labels=labels).loss, expected)
    others = labels.masked_fill(labels == -100, 1)
    assert_close(model(**batch, labels=others).loss, expected)


def test_tokens_within_a_word_continue_its_label(model, tokenizer):
    """Predictions, marginals and the probabilities of entities of tokens, from those of words."""
    batch = encode(tokenizer, TEXTS)
    output = model(**batch)
    emissions, sequences = model.emissions(**batch)
    log_marginals, paths, log_probs = model.crf.posterior(emissions, sequences.mask)
    inner = [1, 1, 3, 3, 4]
    for b, row in enumerate(batch["input_ids"].tolist()):
        at = 1  # behind [CLS]
        for t, word in enumerate(words_of(tokenizer, row)):
            marginals = log_marginals[t, b].exp()
            swapped = marginals.tolist()
            for begins, continues in ((0, 1), (2, 3)):
                swapped[begins], swapped[continues] = sorted((swapped[begins], swapped[continues]))
            for i in range(len(word)):
                label = int(paths[t, b])
                assert output.predictions[b, at] == (inner[label] if i else label)
                assert_close(output.logits[b, at].exp(), torch.tensor(swapped) if i else marginals)
                step = log_probs[t, b, 1] if i == 0 else torch.tensor(0.0)
                assert_close(output.path_log_probs[b, at], torch.stack([log_probs[t, b, 0], step, log_probs[t, b, 2]]))
                at += 1


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        ("B-X", ["B-X", "I-X", "I-X"]),
        ("I-X", ["I-X"] * 3),
        ("E-X", ["I-X", "I-X", "E-X"]),
        ("S-X", ["B-X", "I-X", "E-X"]),
        ("O", ["O"] * 3),
        ("NOUN", ["NOUN"] * 3),
    ],
)
def test_parts_of_words_have_labels_of_the_scheme(tag, parts):
    labels = ["B-X", "I-X", "E-X", "S-X", "O", "NOUN"]
    opened, continued = within_words(labels)
    i = labels.index(tag)
    assert [labels[opened[i]], labels[continued[opened[i]]], labels[continued[i]]] == parts


def test_bioes_labels_make_whole_entities(tokenizer):
    labels = ["B-X", "I-X", "E-X", "S-X", "O"]
    model = new_model(tokenizer, labels)
    batch = encode(tokenizer, TEXTS)
    output, (emissions, sequences) = model(**batch), model.emissions(**batch)
    for b, path in enumerate(model.crf.decode(emissions, sequences.mask)):
        words = [] if not sequences.lengths[b] else [labels[i] for i in path]
        tokens = [labels[i] for i in output.predictions[b].tolist() if i != -100]
        ends = torch.tensor([0, *map(len, words_of(tokenizer, batch["input_ids"][b].tolist()))]).cumsum(0).tolist()
        expected = [(ends[start], ends[end], label) for start, end, label in spans_from_tags(words)]
        assert spans_from_tags(tokens, strict=True) == expected


def test_labels_without_one_for_the_parts_of_a_word_are_an_error(tokenizer):
    with pytest.raises(ValueError, match="B-X.*complete id2label"):
        new_model(tokenizer, ["B-X", "O"])


def test_entities_begin_and_end_at_words(model, tokenizer):
    """In our pipeline, and in the stock one, whose `first` strategy and ours find the same words."""
    texts = [text for text in TEXTS if text]
    ours = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)
    stock = TokenClassificationPipeline(model=model, tokenizer=tokenizer, aggregation_strategy="simple")
    found = 0
    for text, entities in zip(texts, ours(texts), strict=True):
        edges = (
            {0, len(text)}
            | {i for i, c in enumerate(text) if c in " ,'"}
            | {i + 1 for i, c in enumerate(text) if c in " ,"}
        )
        for entity in [*entities, *stock(text)]:
            assert {entity["start"], entity["end"]} <= edges
            found += 1
    assert found > 5


def test_the_label_of_the_first_token_is_enough_for_the_stock_collator(model, tokenizer):
    """As in run_ner of transformers: pre-tokenized words, their label at the first token, -100 elsewhere."""
    words = ["Anna", "Kovacs", "saw", "Rome"]
    encoded = tokenizer(words, is_split_into_words=True)
    ids = encoded.word_ids()
    tags = [2, 3, 4, 0]
    labels = [-100 if i is None or i == before else tags[i] for before, i in zip([None, *ids], ids, strict=False)]
    batch = DataCollatorForTokenClassification(tokenizer)([dict(encoded) | {"labels": labels}])
    joined = encode(tokenizer, [" ".join(words)])
    assert batch["input_ids"].tolist() == joined["input_ids"].tolist()
    emissions, sequences = model.emissions(**joined)
    assert_close(model(**batch).loss, -model.crf(emissions, torch.tensor(tags)[:, None], sequences.mask))


def test_unknown_characters_tell_where_a_word_begins(model, tokenizer):
    rows = encode(tokenizer, ["a 猫 a猫a 猫a a"])["input_ids"].tolist()
    assert [len(word) for word in words_of(tokenizer, rows[0])] == [1, 1, 3, 2, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"Rome," said Mr. Smith (U.S.) of Rome.', '" Rome , " said Mr. Smith ( U.S. ) of Rome .'),
        ("China's workers' O'Brien 's", "China 's workers ' O'Brien 's"),
        ("1996-08-22 10:30, $5.5 AL-AIN -- ``", "1996-08-22 10:30 , $5.5 AL-AIN -- ``"),
        ('¿Roma? «a» wait... Hm..."', '¿ Roma ? « a » wait ... Hm ... "'),
        ("((a)) !!! :", "(( a )) !!! :"),
    ],
)
def test_punctuation_at_the_edge_of_a_word_is_a_word(text, words):
    tokenizer = build_character_tokenizer([text], unit="words")
    pieces = words_of(tokenizer, tokenizer(text)["input_ids"])
    assert [tokenizer.decode(piece).replace("##", "") for piece in pieces] == words.split()


def test_long_runs_of_punctuation_are_read_in_time():
    """With a pattern that tries each part of a run, the first one takes minutes."""
    tokenizer = build_character_tokenizer(["ax!?.,)"], unit="words")
    for text in ("!" * 3000 + "x", "a" + "." * 3000 + "x", "),." * 1000 + "x"):
        assert len(words_of(tokenizer, tokenizer(text)["input_ids"])) == 1


def test_all_characters_of_chinese_and_korean_may_be_known():
    """A character class of a pattern has a limit of 10,000 ranges."""
    characters = [*map(chr, range(0x4E00, 0xA000)), *map(chr, range(0xAC00, 0xD7A4))]
    tokenizer = build_character_tokenizer(["".join(characters), "-]^a"], unit="words")
    tokens = tokenizer("猫힣가 あ-]^a\\", add_special_tokens=False).tokens()
    assert tokens == ["猫", "##힣", "##가", UNKNOWN, "##-", "##]", "##^", "##a", f"##{UNKNOWN}"]


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "\u200b",
        "a" * 5000,
        "a" * 5000 + " " + "b" * 3,
        "\ufffd",
        "서울Rome猫 а́б",
        "\U0001f600 a",
        "a\u0301\u0301 b",
    ],
)
def test_odd_texts_are_tagged(model, tokenizer, text):
    pipe = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)
    for entity in pipe(text):
        assert 0 <= entity["start"] < entity["end"] <= len(text)
        assert 0 <= entity["score"] <= 1


def test_a_tokenizer_that_does_not_mark_words_is_an_error():
    tokenizer = build_character_tokenizer(["ab"])
    vocabulary = {token: i for token, i in tokenizer.get_vocab().items() if not token.startswith("##")}
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, "[UNK]")), pad_token="[PAD]", unk_token="[UNK]"
    )
    with pytest.raises(ValueError, match="does not mark where a word begins"):
        BiLSTMCRFForTokenClassification.from_tokenizer(plain, unit="words")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unit": "syllables"}, "unit must be 'characters' or 'words'"),
        ({"unit": "words", "read_morphemes": True}, "read_morphemes is for unit"),
        ({"unit": "words", "token_columns": ["character", "word_start"]}, "token_columns lack form, shape"),
        ({"unit": "words", "num_word_vectors": 3}, "both 0, or both positive"),
        ({"unit": "words", "num_filters": 0}, "num_filters must be at least 1"),
    ],
)
def test_a_configuration_that_cannot_be_is_an_error(fields, message):
    with pytest.raises(Exception, match=message):
        BiLSTMCRFConfig(**fields)


def test_a_saved_tagger_serves_the_stock_pipeline_in_a_clean_process(model, tokenizer, tmp_path):
    """The code that is saved with it gives what this package gives; `stock` is transformers' own class."""
    texts = [text for text in TEXTS if text]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    code = f"""
    import json
    from transformers import AutoModelForTokenClassification, AutoTokenizer, TokenClassificationPipeline, pipeline
    ours = pipeline("token-classification", model=".", trust_remote_code=True)
    model = AutoModelForTokenClassification.from_pretrained(".", trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)
    stock = TokenClassificationPipeline(model=model, tokenizer=tokenizer)
    rows = [stock(text, aggregation_strategy="first") for text in {texts}]
    places = [[[e["start"], e["end"], e["entity_group"]] for e in row] for row in rows]
    print(json.dumps([ours({texts}), places]))
    """
    found, stock = run_without_package(code, tmp_path)
    expected = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)(texts)
    strip = [[{**entity, "score": 0} for entity in row] for row in expected]
    assert [[{**entity, "score": 0} for entity in row] for row in found] == strip
    here = TokenClassificationPipeline(model=model, tokenizer=tokenizer)
    rows = [here(text, aggregation_strategy="first") for text in texts]
    assert stock == [[[e["start"], e["end"], e["entity_group"]] for e in row] for row in rows]


@pytest.fixture
def corpus() -> Dataset:
    """Sentences of which two have an entity that begins or ends within a word."""
    rows = [
        ("Anna Kovacs saw Rome", [(0, 11, "PER"), (16, 20, "LOC")]),
        ("a", []),
        ("x1y ROME rome", [(1, 8, "LOC"), (9, 13, "LOC")]),
        ("Rome rome-on a", [(0, 9, "LOC"), (10, 12, "PER")]),
    ]
    tags = [tags_from_spans([Span(*span) for span in spans], len(text)) for text, spans in rows]
    features = Features({"text": Value("string"), "tags": List(ClassLabel(names=LABELS))})
    return Dataset.from_dict({"text": [text for text, _ in rows], "tags": tags}, features=features)


def test_labels_of_a_corpus_are_at_the_first_tokens_of_words(model, tokenizer, corpus):
    """An entity belongs to the words whose first character it covers."""
    encoded = EncodedCorpus(corpus, BiLSTMCRFProcessor(tokenizer, model.config), LABELS)
    rows = {}
    for row in encoded.inputs:
        words = words_of(tokenizer, row["input_ids"])
        starts = torch.tensor([1, *map(len, words)]).cumsum(0)[:-1].tolist()
        assert all((label == -100) == (i not in starts) for i, label in enumerate(row["labels"]))
        text = "".join(tokenizer.convert_ids_to_tokens(row["input_ids"])[1:-1]).replace("##", "")
        rows[text] = [LABELS[row["labels"][i]] for i in starts]
    assert rows == {
        "AnnaKovacssawRome": ["B-PER", "I-PER", "O", "B-LOC"],
        "a": ["O"],
        "x1yROMErome": ["O", "B-LOC", "B-LOC"],
        "Romerome-ona": ["B-LOC", "I-LOC", "O"],
    }


def test_predictions_of_a_corpus_are_those_of_the_pipeline(model, tokenizer, corpus):
    encoded = EncodedCorpus(corpus, BiLSTMCRFProcessor(tokenizer, model.config), LABELS)
    rows = [
        model(**{name: torch.tensor([row[name]]) for name in ("input_ids", "attention_mask")}) for row in encoded.inputs
    ]
    decoded = encoded.decode([row.predictions[0].tolist() for row in rows])
    pipe = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)
    expected = [[(e["start"], e["end"], e["entity_group"]) for e in entities] for entities in pipe(corpus["text"][:])]
    assert [list(map(tuple, spans)) for spans in decoded] == expected


def test_a_limit_in_tokens_is_an_error(model, tokenizer, corpus):
    with pytest.raises(ValueError, match="a limit of 12 tokens would cut words in two"):
        EncodedCorpus(corpus, BiLSTMCRFProcessor(tokenizer, model.config), LABELS, max_length=12)


def test_a_classifier_of_texts_reads_words(tokenizer):
    torch.manual_seed(0)
    model = BiLSTMForSequenceClassification.from_tokenizer(tokenizer, unit="words", hidden_size=8, num_labels=3).eval()
    together = model(**encode(tokenizer, TEXTS)).logits
    for i, text in enumerate(TEXTS):
        assert_close(model(**encode(tokenizer, [text])).logits[0], together[i], atol=1e-5, rtol=1e-5)


def test_pretraining_is_for_characters(tokenizer):
    with pytest.raises(ValueError, match='unit must be "characters" in pretraining'):
        BiLSTMForPreTraining.from_tokenizer(tokenizer, unit="words")
