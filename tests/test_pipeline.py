import copy
import itertools
import json
import math
import random
import subprocess
import sys
import textwrap
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from clean_process import run_without_package
from conftest import LABELS, new_tagger
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import BertConfig, TokenClassificationPipeline, XLMRobertaConfig, pipeline
from transformers.pipelines.pt_utils import KeyDataset
from words import ODD_WORDS, expected_tags

from bilstm_crf_hf import (
    BiLSTMCRFTokenClassificationPipeline,
    EncoderCRFConfig,
    EncoderCRFForTokenClassification,
    pipeline_bilstm_crf,
    render_entities,
)
from bilstm_crf_hf.alignment import Span, spans_from_tags
from bilstm_crf_hf.data.encoding import EncodedCorpus
from bilstm_crf_hf.pipeline_bilstm_crf import default_workers
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor


@pytest.fixture
def pipe(tagger, tokenizer):
    return pipeline(
        "token-classification", model=tagger, tokenizer=tokenizer, pipeline_class=BiLSTMCRFTokenClassificationPipeline
    )


@pytest.mark.slow
def test_saved_folder_brings_its_pipeline_along(tagger, tokenizer, texts, pipe, tmp_path):
    tagger.save_pretrained(tmp_path / "export")
    tokenizer.save_pretrained(tmp_path / "export")
    found = run_without_package(
        f"""
        import json
        from transformers import pipeline
        ours = pipeline("token-classification", model="./export", trust_remote_code=True)
        alias = pipeline("ner", model="./export", trust_remote_code=True, aggregation_strategy="simple")
        names = [type(ours).__name__, type(alias).__name__]
        print(json.dumps([*names, ours({texts!r}), len(alias({texts[0]!r}))]))
        """,
        tmp_path,
    )
    assert found[0] == "BiLSTMCRFTokenClassificationPipeline"
    assert found[1] == "TokenClassificationPipeline"
    assert found[3] > 0
    for ours, theirs in zip(found[2], pipe(texts), strict=True):
        assert [e | {"score": 0} for e in ours] == [e | {"score": 0} for e in theirs]
        assert [e["score"] for e in ours] == pytest.approx([e["score"] for e in theirs], abs=1e-6)


def test_entities_are_those_of_the_best_path(pipe, tagger, tokenizer, texts):
    for text in texts:
        predictions = tagger(**tokenizer(text, return_tensors="pt")).predictions[0, 1:-1]
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        expected = [
            (offsets[start][0], offsets[end - 1][1], label)
            for start, end, label in spans_from_tags(LABELS[i] for i in predictions)
        ]
        assert [(e["start"], e["end"], e["entity_group"]) for e in pipe(text)] == expected
        assert all(e["word"] == text[e["start"] : e["end"]] for e in pipe(text))


def test_score_is_the_probability_of_exactly_this_entity(pipe, tagger, tokenizer):
    """Compare with the sum over all paths of a four-character text, by brute force in float64."""
    text = "서울에서"
    batch = tokenizer(text, return_tensors="pt")
    emissions = tagger.classifier(tagger.bilstm(**batch).last_hidden_state[0, 1:-1]).double()
    crf = tagger.crf.double()
    weights: dict[tuple, float] = {}
    for path in itertools.product(range(len(LABELS)), repeat=4):
        if all(crf.possible[a, b] for a, b in itertools.pairwise((-1, *path, -1))):
            score = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
            score += sum(emissions[t, tag] for t, tag in enumerate(path))
            score += sum(crf.transitions[a, b] for a, b in itertools.pairwise(path))
            weights[path] = math.exp(score.item())
    crf.float()
    total = sum(weights.values())
    entities = pipe(text)
    assert entities
    for entity in entities:
        span = (entity["start"], entity["end"], entity["entity_group"])
        holding = sum(w for path, w in weights.items() if span in spans_from_tags(LABELS[i] for i in path))
        assert entity["score"] == pytest.approx(holding / total, rel=1e-4)


def test_tokens_with_strategy_none_carry_the_tags_of_the_best_path(pipe, tagger, tokenizer, texts):
    batch = tokenizer(texts[0], return_tensors="pt")
    output = tagger(**batch)
    tokens = pipe(texts[0], aggregation_strategy="none", ignore_labels=[])
    assert [LABELS.index(t["entity"]) for t in tokens] == output.predictions[0, 1:-1].tolist()
    marginals = output.logits.softmax(-1)[0]
    assert [t["score"] for t in tokens] == pytest.approx(
        [marginals[t["index"], LABELS.index(t["entity"])].item() for t in tokens], rel=1e-5
    )
    assert [t["word"].removeprefix("##") for t in tokens] == [c for c in texts[0] if c != " "]


@pytest.mark.parametrize("strategy", ["first", "average", "max"])
def test_word_strategies_are_the_stock_pipelines(pipe, tagger, tokenizer, texts, strategy):
    tagger.config.custom_pipelines = {}  # set by an earlier save
    stock = TokenClassificationPipeline(model=tagger, tokenizer=tokenizer)
    assert pipe(texts, aggregation_strategy=strategy) == stock(texts, aggregation_strategy=strategy)


def test_ignored_labels_may_be_kept(pipe, texts):
    groups = pipe(texts[0], ignore_labels=[])
    covered = {i for g in groups for i in range(g["start"], g["end"])}
    assert {i for i, c in enumerate(texts[0]) if c != " "} <= covered
    assert [g for g in groups if g["entity_group"] != "O"] == pipe(texts[0])
    assert not [g for g in pipe(texts, ignore_labels=["O", "PS"]) for g in g if g["entity_group"] == "PS"]


@pytest.mark.parametrize(
    "make_inputs",
    [
        lambda data: list(data["text"]),
        lambda data: data["text"],
        lambda data: data.to_iterable_dataset()["text"],
        lambda data: (text for text in data["text"]),
        lambda data: KeyDataset(data, "text"),
    ],
    ids=["list", "column", "streamed column", "generator", "KeyDataset"],
)
@pytest.mark.parametrize("options", [{}, {"batch_size": 3}, {"batch_size": 1}], ids=str)
def test_many_texts_give_what_each_gives_alone_in_their_order(pipe, texts, make_inputs, options, monkeypatch):
    monkeypatch.setattr(pipeline_bilstm_crf, "BATCHES_SORTED", 2)
    one_by_one = [pipe(text) for text in texts]
    found = pipe(make_inputs(Dataset.from_dict({"text": texts})), **options)
    for ours, theirs in zip(found, one_by_one, strict=True):
        assert [e | {"score": 0} for e in ours] == [e | {"score": 0} for e in theirs]
        assert [e["score"] for e in ours] == pytest.approx([e["score"] for e in theirs], abs=1e-5)


def test_texts_of_similar_length_share_a_batch(pipe, monkeypatch):
    texts = ["서울" * n for n in random.Random(0).sample(range(1, 101), 100)]
    widths = []
    forward = pipe.model.forward
    monkeypatch.setattr(
        pipe.model, "forward", lambda **batch: widths.append(batch["input_ids"].shape) or forward(**batch)
    )
    pipe(texts, batch_size=10, num_workers=0)  # threads would run them side by side
    assert widths == [(10, 20 * n + 2) for n in range(10, 0, -1)]


def test_of_long_texts_fewer_share_a_batch(pipe, monkeypatch):
    widths = []
    forward = pipe.model.forward
    monkeypatch.setattr(
        pipe.model, "forward", lambda **batch: widths.append(batch["input_ids"].shape) or forward(**batch)
    )
    pipe(["서울" * 5] * 8 + ["서울" * 256] * 4 + ["서울" * 1024] * 2, batch_size=4)
    assert widths == [(1, 2050), (1, 2050), (2, 514), (2, 514), (4, 12), (4, 12)]


def test_a_stream_is_read_as_it_is_tagged(pipe, monkeypatch):
    monkeypatch.setattr(pipeline_bilstm_crf, "BATCHES_SORTED", 2)
    read = itertools.count()
    results = iter(pipe((f"{next(read)}번 서울" for _ in itertools.count()), batch_size=2))
    for _ in range(9):
        next(results)
    assert next(read) == 12


def test_results_of_a_data_set_have_its_length(pipe, texts):
    assert len(pipe(KeyDataset(Dataset.from_dict({"text": texts}), "text"))) == len(texts)


def test_empty_texts_have_no_entities(pipe):
    assert pipe("") == []
    assert pipe(["", "  ", "\n"]) == [[], [], []]


def test_long_texts_are_not_cut(tagger, tokenizer, texts, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    short = type(tokenizer).from_pretrained(tmp_path, model_max_length=24)
    pipe = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=short)
    text = " ".join(texts * 5)
    tokens = pipe(text, aggregation_strategy="none", ignore_labels=[])
    assert len(tokens) == sum(not c.isspace() for c in text)
    whole = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer)(text)
    assert pipe(text) == whole


def test_stride_covers_the_whole_text_in_windows(tagger, tokenizer, texts, tmp_path):
    """Every part of the text is in a window; entities stay within the text and do not overlap."""
    tokenizer.save_pretrained(tmp_path)
    short = type(tokenizer).from_pretrained(tmp_path, model_max_length=24)
    pipe = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=short)
    text = " ".join(texts * 5)
    found = pipe(text, stride=8)
    assert max(e["end"] for e in found) > len(text) - 30
    assert all(a["end"] <= b["start"] for a, b in itertools.pairwise(found))
    assert all(e["word"] == text[e["start"] : e["end"]] for e in found)
    with pytest.raises(ValueError, match="stride"):
        pipe(text, stride=24)


def encoder_tagger(tokenizer, positions: int, pad_token_id: int = 0) -> EncoderCRFForTokenClassification:
    """Return a tagger on an encoder with so many positions, which an XLM-RoBERTa counts from the padding token."""
    torch.manual_seed(0)
    encoder = (BertConfig, XLMRobertaConfig)[pad_token_id](
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=positions,
        pad_token_id=pad_token_id,
        initializer_range=1.0,
    )
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    special = tokenizer.all_special_ids
    return EncoderCRFForTokenClassification(
        EncoderCRFConfig(encoder_config=encoder, special_token_ids=special, **names)
    )


@pytest.mark.parametrize(("positions", "pad_token_id", "limit"), [(32, 0, 32), (34, 1, 32), (6, 0, 6)])
@pytest.mark.parametrize("model_max_length", [512, int(1e30)])
def test_a_text_longer_than_the_positions_is_read_in_the_windows_of_the_evaluation(
    tokenizer, texts, positions, pad_token_id, limit, model_max_length
):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = model_max_length
    model = encoder_tagger(tokenizer, positions, pad_token_id).eval()
    pipe = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)
    rows = [" ".join(texts), texts[0], "", " ".join(texts[3:])]
    tags = [[LABELS.index("O")] * len(text) for text in rows]
    names = Features({"text": Value("string"), "tags": List(ClassLabel(names=LABELS))})
    data = Dataset.from_dict({"text": rows, "tags": tags}, features=names)
    corpus = EncodedCorpus(data, BiLSTMCRFProcessor(tokenizer, model.config), LABELS)
    assert corpus.limit == limit
    assert max(map(len, corpus.inputs["input_ids"])) == limit
    batch = [tokenizer.pad([{"input_ids": ids}], return_tensors="pt") for ids in corpus.inputs["input_ids"]]
    expected = corpus.decode([model(**row).predictions[0].tolist() for row in batch])
    for found in (pipe(rows), [pipe(text) for text in rows]):
        assert [[Span(e["start"], e["end"], e["entity_group"]) for e in row] for row in found] == expected
    assert all(0 < entity["score"] < 1 + 1e-6 for entity in found[0])
    tokens = pipe(rows[0], aggregation_strategy="none", ignore_labels=[])
    assert "".join(rows[0][token["start"] : token["end"]] for token in tokens) == rows[0].replace(" ", "")
    assert [token["index"] for token in tokens] == list(range(1, len(tokens) + 1))
    assert pipe(rows[0], aggregation_strategy="first")[-1]["end"] > len(rows[0]) - 40


def test_windows_of_a_text_are_tagged_in_batches(tokenizer, texts):
    tokenizer = copy.deepcopy(tokenizer)
    pipe = BiLSTMCRFTokenClassificationPipeline(model=encoder_tagger(tokenizer, 8), tokenizer=tokenizer)
    text = " ".join(texts)
    assert [e | {"score": 0} for e in pipe(text, batch_size=3)] == [e | {"score": 0} for e in pipe(text)]


@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_a_batch_without_texts_is_an_error(tagger, tokenizer, pipe, batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}: set it to an integer from 1 on"):
        pipe(["서울"], batch_size=batch_size)
    made = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer, batch_size=batch_size)
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}: set it to an integer from 1 on"):
        made("서울")


def test_offsets_given_with_a_text_replace_those_of_the_tokenizer(pipe, tokenizer, texts):
    """As in the stock pipeline, for a single text only."""
    text = texts[0]
    offsets = [(start + 3, end + 3) for start, end in tokenizer(text, return_offsets_mapping=True)["offset_mapping"]]
    shifted = [{"start": each["start"] + 3, "end": each["end"] + 3} for each in pipe(text, aggregation_strategy="none")]
    found = pipe(text, aggregation_strategy="none", offset_mapping=offsets)
    assert [{name: each[name] for name in ("start", "end")} for each in found] == shifted
    with pytest.raises(ValueError, match="only be given with a single text"):
        pipe([text, text], offset_mapping=offsets)


CONTAINERS = [list, tuple, lambda rows: (row for row in rows)]
BAD_TEXTS = [None, 3, ("서울", "부산"), ["서울"], {"text": "서울"}, b"abc", {"role": "user", "content": "서울"}]


@pytest.mark.parametrize("bad", BAD_TEXTS, ids=str)
@pytest.mark.parametrize(
    "container", [list, tuple, lambda rows: (row for row in rows)], ids=["list", "tuple", "stream"]
)
def test_what_is_no_text_is_an_error_with_its_index(pipe, bad, container):
    with pytest.raises(ValueError, match="text 2 is .*, and not a string"):
        list(pipe(container(["서울", "", bad])))


@pytest.mark.parametrize("inputs", [None, 3, b"abc", {"text": "서울"}, {"서울"}], ids=str)
def test_inputs_that_are_no_texts_are_an_error(pipe, inputs):
    with pytest.raises(ValueError, match=f"the input is of the type {type(inputs).__name__}: give a text"):
        pipe(inputs)


def test_half_of_a_surrogate_pair_is_an_error_with_its_place(pipe):
    with pytest.raises(ValueError, match=r"text 1: character 2 is '\\ud800', half of a surrogate pair"):
        pipe(["서울", "부산\ud800"])


def test_any_collection_of_texts_keeps_its_order(pipe, texts):
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(texts)

        def __getitem__(self, i):
            return texts[i % len(texts)]  # no error behind the end

    expected = pipe(texts)
    assert pipe(tuple(texts)) == expected
    assert list(pipe(Rows())) == list(pipe(iter(texts))) == list(pipe(np.array(texts))) == expected
    assert pipe([]) == list(pipe(iter([]))) == []


@pytest.mark.parametrize(
    "container", [list, tuple, lambda rows: (row for row in rows)], ids=["list", "tuple", "stream"]
)
def test_many_texts_in_words(pipe, texts, container):
    rows = [text.split() for text in texts]
    assert list(pipe(container(rows), is_split_into_words=True)) == pipe([" ".join(row) for row in rows])
    made = BiLSTMCRFTokenClassificationPipeline(model=pipe.model, tokenizer=pipe.tokenizer, is_split_into_words=True)
    assert list(made(container(rows))) == pipe([" ".join(row) for row in rows])


def test_what_are_no_words_is_an_error(pipe):
    with pytest.raises(ValueError, match="text 1 is '서울', and not a list of words"):
        pipe([["서울"], "서울"], is_split_into_words=True)
    with pytest.raises(ValueError, match="text 0, word 1 is None"):
        pipe([["서울", None]], is_split_into_words=True)
    with pytest.raises(ValueError, match="type str: give a list of words"):
        pipe("서울에서", is_split_into_words=True)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ignore_labels": "PS"}, (ValueError, "give a list of labels")),
        ({"offset_mapping": [(0, 2)]}, (ValueError, "offset_mapping has 1 rows: give one for each")),
        ({"stride": 0}, (ValueError, "stride is 0")),
        ({"stride": -1}, (ValueError, "stride is -1")),
        ({"unknown": 1}, (TypeError, "unknown")),
    ],
    ids=str,
)
def test_arguments_that_make_no_sense_are_errors(pipe, options, error):
    with pytest.raises(error[0], match=error[1]):
        pipe("서울", **options)


def test_a_model_in_training_is_put_in_evaluation(tokenizer, texts):
    model = new_tagger(tokenizer)
    pipe = BiLSTMCRFTokenClassificationPipeline(model=model.train(), tokenizer=tokenizer)
    expected = pipe(texts)
    model.train()
    assert pipe(texts) == expected
    model.bilstm.train()
    assert pipe(texts) == expected


def test_words_as_units_are_warned_of_once_and_scores_are_plain_numbers(pipe, texts, caplog):
    """The words of this tagger hold particles, so its entities are not those of the Viterbi path."""
    for strategy in ("first", "average", "max"):
        found = pipe(texts, aggregation_strategy=strategy)
        assert json.loads(json.dumps(found)) == found
        assert {type(entity["score"]) for row in found for entity in row} == {float}
    assert [record.levelname for record in caplog.records if "use 'simple'" in record.message] == ["WARNING"]
    assert "particles" in caplog.text
    assert pipe(texts, aggregation_strategy="first") != pipe(texts)


def test_words_instead_of_a_text(pipe):
    words = ["김연아는", "지난해", "서울로", "돌아왔다."]
    assert pipe(words, is_split_into_words=True) == [pipe(" ".join(words))]  # nested, as in the stock pipeline


@pytest.mark.parametrize("delimiter", [" ", ""])
def test_each_word_has_the_tag_of_its_first_character(pipe, texts, delimiter):
    rows = [*(text.split() for text in texts), *ODD_WORDS, list(texts[0])]
    options = {"is_split_into_words": True, "delimiter": delimiter}
    entities = pipe(rows, **options)
    assert entities == pipe([delimiter.join(row) for row in rows])
    tags = pipe(rows, return_tags=True, **options)
    assert tags == [expected_tags(*row, delimiter) for row in zip(rows, entities, strict=True)]
    assert list(map(len, tags)) == list(map(len, rows))
    assert {tag[:2] for row in tags for tag in row} == {"B-", "I-", "O"}
    assert pipe(rows[0], return_tags=True, **options) == tags[:1]
    assert list(pipe(iter(rows), return_tags=True, batch_size=2, num_workers=2, **options)) == tags
    made = BiLSTMCRFTokenClassificationPipeline(
        model=pipe.model, tokenizer=pipe.tokenizer, is_split_into_words=True, return_tags=True
    )
    assert made(rows, delimiter=delimiter) == tags
    assert made(rows, delimiter=delimiter, return_tags=False) == entities


def test_tags_are_of_words_only(pipe):
    with pytest.raises(ValueError, match="return_tags is for words: give lists of words with is_split_into_words=True"):
        pipe("서울", return_tags=True)
    with pytest.raises(ValueError, match="return_tags derives from entities: leave out aggregation_strategy='none'"):
        pipe(["서울"], is_split_into_words=True, return_tags=True, aggregation_strategy="none")
    kept = {"ignore_labels": []}
    assert pipe([["서울", "에"]], is_split_into_words=True, return_tags=True, **kept) == pipe(
        [["서울", "에"]], is_split_into_words=True, return_tags=True
    )


def test_long_words_share_a_batch_with_few_others(pipe, monkeypatch):
    seen = []
    encode = pipe.encode
    monkeypatch.setattr(pipe, "encode", lambda texts, **kwargs: seen.append(len(texts)) or encode(texts, **kwargs))
    pipe([["a" * 5000]] * 8 + [["가"]] * 8, is_split_into_words=True, batch_size=16, num_workers=0)
    assert seen == [1] * 8 + [8]


def test_result_renders_as_inline_marks():
    text = "손흥민은 1992년 7월 8일 춘천에서 태어났다."
    entities = [
        {"entity_group": "PS", "start": 0, "end": 3},
        {"entity_group": "DT", "start": 5, "end": 16},
        {"entity_group": "LC", "start": 17, "end": 19},
    ]
    assert render_entities(text, entities) == "<손흥민:PS>은 <1992년 7월 8일:DT> <춘천:LC>에서 태어났다."


def test_results_are_plain_json(pipe, texts):
    assert json.loads(json.dumps(pipe(texts))) == pipe(texts)
    assert json.dumps(pipe(texts[0], aggregation_strategy="none"))


def test_bieos_labels(tokenizer, texts):
    labels = ["B-PS", "I-PS", "E-PS", "S-PS", "O"]
    model = new_tagger(tokenizer, id2label=dict(enumerate(labels)), label2id={x: i for i, x in enumerate(labels)})
    found = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)(texts)
    assert {e["entity_group"] for row in found for e in row} == {"PS"}
    assert all(0 < e["score"] <= 1 + 1e-6 for row in found for e in row)
    with torch.no_grad():
        paths = model(**tokenizer(texts, padding=True, return_tensors="pt")).predictions
    for path in paths:
        spans_from_tags((labels[i] for i in path if i != -100), strict=True)


def test_special_tokens_in_the_chain_have_no_place_in_the_text(tokenizer, texts):
    labels = ["<START>", "B-PS", "I-PS", "O"]
    model = new_tagger(tokenizer, id2label=dict(enumerate(labels)), label2id={x: i for i, x in enumerate(labels)})
    model.config.special_token_ids = []
    with torch.no_grad():
        model.crf.start_transitions[0] = 1e3
        model.crf.transitions[:, 0] = -1e3
    pipe = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)
    for text, groups, tokens in zip(
        texts, pipe(texts, ignore_labels=[]), pipe(texts, aggregation_strategy="none", ignore_labels=[]), strict=True
    ):
        assert {i for g in groups for i in range(g["start"], g["end"])} >= {
            i for i, character in enumerate(text) if character != " "
        }
        assert [text[t["start"] : t["end"]] for t in tokens] == [c for c in text if c != " "]


def test_nbest_paths_of_a_model_are_those_of_its_crf_with_their_probabilities(tagger, tokenizer, texts):
    """In a padded batch, against the CRF on the emissions of each sentence alone; without tokens there is no path."""
    output = tagger.nbest(**tokenizer([*texts, ""], padding=True, return_tensors="pt"), num_paths=3)
    for i, text in enumerate(texts):
        batch = tokenizer(text, return_tensors="pt")
        emissions, _ = tagger.emissions(**batch)
        paths, scores = tagger.crf.nbest(emissions, k=3)
        length = batch["input_ids"].shape[1]
        assert output.predictions[i, :, 1 : length - 1].equal(paths[:, :, 0])
        assert (output.predictions[i, :, length - 1 :] == -100).all()
        log_z = scores[0, 0] - tagger.crf(emissions, paths[0], reduction="none")
        assert output.probabilities[i].tolist() == pytest.approx((scores[:, 0] - log_z).exp().tolist(), rel=1e-3)
        assert output.predictions[i, 0].equal(tagger(**batch).predictions[0]) or output.predictions.shape[2] > length
    assert (output.predictions[-1] == -100).all()
    assert (output.probabilities[-1] == 0).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["crf.transitions", "bilstm.features.word_embeddings.weight"])
def test_a_model_with_weights_that_are_not_finite_is_refused(tokenizer, name, value):
    model = new_tagger(tokenizer)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[-1] = value
    with pytest.raises(ValueError, match=rf"the weight {name} holds NaN or infinity"):
        BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_the_largest_weights_are_finite_and_an_infinite_mask_is_no_weight(dtype):
    model = torch.nn.Linear(2, 2)
    model.weight = torch.nn.Parameter(torch.full((2, 2), torch.finfo(dtype).max, dtype=dtype))
    model.register_buffer("mask", torch.full((2, 2), -math.inf))
    pipeline_bilstm_crf.check_finite(model)
    model.mask[0, 0] = math.nan
    with pytest.raises(ValueError, match="Linear: the weight mask"):
        pipeline_bilstm_crf.check_finite(model)


def odd_texts(texts: list[str]) -> list[str]:
    decomposed = [unicodedata.normalize("NFD", text) for text in texts]
    odd = ["", " ", "\u200b", "서울 " * 700, "😀\u3000서울", "가\u0301 ㎞ 5㎞", "[SEP] 서울 [CLS]"]
    return [*texts * 9, *decomposed, *odd]


@pytest.mark.parametrize("options", [{}, {"aggregation_strategy": "none"}, {"aggregation_strategy": "first"}])
def test_threads_give_exactly_what_the_calling_thread_gives(pipe, texts, options):
    inputs = odd_texts(texts)
    expected = pipe(inputs, batch_size=4, num_workers=0, **options)
    assert sum(map(len, expected)) > 20
    for workers in (2, 5):
        assert pipe(inputs, batch_size=4, num_workers=workers, **options) == expected
        assert list(pipe(iter(inputs), batch_size=4, num_workers=workers, **options)) == expected


def test_threads_join_the_windows_of_an_encoder(tokenizer, texts):
    pipe = BiLSTMCRFTokenClassificationPipeline(model=encoder_tagger(tokenizer, 16), tokenizer=tokenizer, device="cpu")
    inputs = odd_texts(texts)
    assert pipe(inputs, batch_size=4, num_workers=3) == pipe(inputs, batch_size=4, num_workers=0)


def test_many_callers_share_a_pipeline(pipe, texts):
    """The padding of a fast tokenizer is a state that threads must not change side by side."""
    batches = [odd_texts(texts)[n:] for n in range(8)]
    expected = [pipe(batch, batch_size=3, num_workers=0) for batch in batches]
    with ThreadPoolExecutor(4) as callers:
        for _ in range(5):
            assert list(callers.map(partial(pipe, batch_size=3, num_workers=2), batches)) == expected


def test_a_model_that_returns_its_hidden_states_is_tagged_with(tokenizer, tagger, texts):
    expected = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer, device="cpu")(texts)
    model = copy.deepcopy(tagger)
    model.config.output_hidden_states = True
    pipe = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu")
    assert pipe(texts) == expected
    assert len(pipe(texts, aggregation_strategy="none")) == len(texts)


def test_the_autocast_of_the_caller_holds_in_threads(pipe, texts):
    with torch.autocast("cpu", torch.bfloat16):
        expected = pipe(texts * 9, batch_size=4, num_workers=0)
        assert pipe(texts * 9, batch_size=4, num_workers=3) == expected
    assert pipe(texts * 9, batch_size=4, num_workers=3) != expected


def test_threads_that_cannot_start_leave_nothing_behind():
    """The process would not end if threads waited for those that could not start."""
    code = """
        import threading, torch
        from bilstm_crf_hf.pipeline_bilstm_crf import use_one_thread_each
        from bilstm_crf_hf.threads import ordered_map
        torch.set_num_threads(2)
        start, started = threading.Thread.start, []
        def limited(thread):
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            started.append(thread)
            start(thread)
        threading.Thread.start = limited
        try:
            list(ordered_map(str, range(9), 5, use_one_thread_each))
        except RuntimeError as error:
            print(error, torch.get_num_threads())
    """
    options = {"capture_output": True, "text": True, "check": True, "timeout": 120}
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], **options)
    assert result.stdout.strip() == "can't start new thread 2"


def test_threads_leave_the_threads_of_pytorch_alone():
    """In a process whose PyTorch has two threads, batches have one each, and callers keep theirs."""
    code = """
        import threading, torch
        from bilstm_crf_hf import pipeline_bilstm_crf as module
        from bilstm_crf_hf.threads import ordered_map
        torch.set_num_threads(2)
        torch.ones(2**20).add_(1)
        found = list(ordered_map(lambda _: torch.get_num_threads(), range(50), 3, module.use_one_thread_each))
        later = []
        def work():
            torch.ones(2**20).add_(1)
            later.append(torch.get_num_threads())
        thread = threading.Thread(target=work)
        thread.start(); thread.join()
        print(set(found), torch.get_num_threads(), later)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "{1} 2 [2]"


def test_batches_have_as_many_threads_as_pytorch_and_the_process_may_use(tagger, tokenizer, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(pipeline_bilstm_crf, "usable_cpus", lambda: 4)
    encoder = encoder_tagger(tokenizer, 16)
    assert [default_workers(tagger, is_single) for is_single in (False, True)] == [4, 4]
    assert [default_workers(encoder, is_single) for is_single in (False, True)] == [4, 0]
    monkeypatch.setattr(pipeline_bilstm_crf, "usable_cpus", lambda: 16)
    assert [default_workers(model, False) for model in (tagger, encoder)] == [16, 0]  # few encoders fit into memory
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert [default_workers(model, False) for model in (tagger, encoder)] == [0, 0]


def test_a_pipeline_keeps_its_number_of_workers(tagger, tokenizer, texts, monkeypatch):
    pipe = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer, device="cpu", num_workers=3)
    used = []
    run = pipeline_bilstm_crf.ordered_map
    monkeypatch.setattr(
        pipeline_bilstm_crf, "ordered_map", lambda f, items, workers, prepare: used.append(workers) or run(f, items, 0)
    )
    pipe(texts)
    pipe(texts, num_workers=2)
    pipe(texts, num_workers=1)
    assert used == [3, 2, 0]


@pytest.mark.parametrize("num_workers", [-1, 1.5, "2"])
def test_a_number_of_workers_that_is_none_is_an_error(pipe, num_workers):
    with pytest.raises(ValueError, match="num_workers is .*: set it to an integer from 0 on"):
        pipe("서울", num_workers=num_workers)
