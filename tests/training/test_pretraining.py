"""The cloze: what is asked has not been read, against loops over single sentences; what later models take from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clean_process import run_without_package
from conftest import LABELS
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForPreTraining

from bilstm_crf_hf import (
    BiLSTMCRFConfig,
    BiLSTMCRFForTokenClassification,
    BiLSTMForPreTraining,
    BiLSTMForSequenceClassification,
)
from bilstm_crf_hf.commands import pretrain
from bilstm_crf_hf.data.inline_marks import parse_inline
from bilstm_crf_hf.data.morphology import morpheme_tags
from bilstm_crf_hf.evaluation.tasks import CLASSIFICATION, label_maps
from bilstm_crf_hf.training.arguments import ModelArguments
from bilstm_crf_hf.training.loading import load_model

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = {"embedding_size": 16, "hidden_size": 24, "ngram_buckets": 256, "ngram_embedding_size": 8}
NO_DROPOUT = dict.fromkeys(("embedding_dropout", "locked_dropout", "ngram_dropout", "word_dropout"), 0.0)
TAGS = ["B-NNP", "B-JKO", "I-NNP", "B-VV", "O"]
WINDOWS = {
    "bigrams": [[-1, 0], [0, 1]],
    "bigrams and trigrams": [[-1, 0], [0, 1], [-1, 1], [-2, 0], [0, 2]],
    "one-sided": [[-2, 0]],
    "apart": [[-2, -1], [1, 2]],
    "none": [],
}


def new_model(tokenizer, **config) -> BiLSTMForPreTraining:
    torch.manual_seed(0)
    return BiLSTMForPreTraining.from_tokenizer(tokenizer, **label_maps(TAGS), **(SMALL | config)).eval()


@pytest.fixture(scope="module")
def model(tokenizer) -> BiLSTMForPreTraining:
    return new_model(tokenizer)


@pytest.fixture(scope="module")
def checkpoint(model, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def states_around(model, input_ids, attention_mask=None) -> torch.Tensor:
    """Return the states that tokens are predicted from, (B, S, H)."""
    sequences = model.bilstm.sequences(input_ids, attention_mask)
    with torch.no_grad():
        return sequences.unpack(model.context_states(model.bilstm.encode(input_ids, sequences), sequences))


# ---------------------------------------------------------------- what is asked has not been read


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_a_token_is_guessed_without_having_been_read(tokenizer, windows):
    """Every token in turn becomes others: what it is guessed from stays, what others are guessed from does not."""
    model = new_model(tokenizer, ngrams=windows)
    ids = tokenizer("봉준호 감독이 파리에 갔다.", return_tensors="pt").input_ids
    states = states_around(model, ids)
    length = ids.shape[1] - 2
    others = tokenizer.convert_tokens_to_ids(["서", "##울", "##1", "[UNK]"])
    for place in range(1, length + 1):
        read = torch.zeros(length, dtype=torch.bool)
        for other in set(others) - {int(ids[0, place])}:
            changed = ids.clone()
            changed[0, place] = other
            difference = (states_around(model, changed) - states)[0, 1:-1].abs().amax(-1)
            assert difference[place - 1] == 0
            read |= difference > 0
        assert read.sum() >= length - 3  # all but the token, and its neighbours where bigrams would have told


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_states_around_equal_those_of_sentences_alone(tokenizer, texts, windows, side):
    """A loop over positions, from the states of each sentence by itself: forward states from the left, backward ones
    from the right, each the nearest one whose own windows end before the token."""
    model = new_model(tokenizer, ngrams=windows)
    tokenizer.padding_side = side
    batch = tokenizer([*texts, "갔다"], padding=True, return_tensors="pt")
    tokenizer.padding_side = "right"
    found = states_around(model, **{name: batch[name] for name in ("input_ids", "attention_mask")})
    half = model.config.hidden_size // 2
    # What a direction reads of its windows, those with at most one token ahead of it.
    ahead = max([0, *(last for _, last in windows if last <= 1)])
    behind = max([0, *(-first for first, _ in windows if first >= -1)])
    for row, text in enumerate([*texts, "갔다"]):
        alone = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            hidden = model.bilstm(alone.input_ids).last_hidden_state[0, 1:-1]
        inside = batch.attention_mask[row].nonzero()[1:-1, 0]
        for t, position in enumerate(inside):
            forward = torch.zeros(half) if t - 1 - ahead < 0 else hidden[t - 1 - ahead, :half]
            backward = torch.zeros(half) if t + 1 + behind >= len(hidden) else hidden[t + 1 + behind, half:]
            assert_close(found[row, position], torch.cat([forward, backward]), atol=1e-6, rtol=1e-5)


def test_loss_is_the_cross_entropy_of_the_tokens_drawn(model, tokenizer, texts, monkeypatch):
    """By hand, over every token with padding once: candidates are the tokens of the batch."""
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    sequences = model.bilstm.sequences(batch.input_ids, batch.attention_mask)
    tokens = sequences.pack(batch.input_ids).flatten()
    monkeypatch.setattr(torch, "randint", lambda high, size, device: torch.arange(high))
    with torch.no_grad():
        output = model(**batch)
        states = states_around(model, batch.input_ids, batch.attention_mask)
        scores = model.vocabulary(model.transform(states)).double()
    candidates = sorted(set(tokens.tolist()))
    losses = []
    for row, ids in enumerate(batch.input_ids.tolist()):
        for position, token in enumerate(ids):
            if token not in tokenizer.all_special_ids:
                log_probs = scores[row, position, candidates].log_softmax(-1)
                losses.append(-log_probs[candidates.index(token)])
    assert output.cloze_loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert output.loss.equal(output.cloze_loss)
    assert output.logits is None


def test_loss_is_the_sum_and_comes_first(model, tokenizer, texts):
    """In a tuple too, of which Trainer takes the first."""
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    labels = torch.where(batch.input_ids > 4, batch.input_ids % len(TAGS), -100)
    answers = []
    for return_dict in (True, False):
        torch.manual_seed(1)
        with torch.no_grad():
            answers.append(model(**batch, labels=labels, return_dict=return_dict))
    output, values = answers
    assert_close(output.loss, output.cloze_loss + output.tag_loss)
    log_probs = output.logits.log_softmax(-1)
    known = [
        log_probs[row, i, label] for row, ids in enumerate(labels.tolist()) for i, label in enumerate(ids) if label >= 0
    ]
    assert_close(output.tag_loss, -torch.stack(known).mean())
    for name, value in zip(("loss", "cloze_loss", "tag_loss", "logits"), values, strict=True):
        assert output[name].equal(value)


def test_a_few_steps_lower_both_losses(tokenizer, texts):
    model = new_model(tokenizer, **NO_DROPOUT).train()
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    labels = torch.where(batch.input_ids > 4, batch.input_ids % len(TAGS), -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        output = model(**batch, labels=labels)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append((output.cloze_loss.item(), output.tag_loss.item()))
    for first, last in zip(losses[0], losses[-1]):
        assert last < 0.7 * first


@pytest.mark.parametrize("text", ["", "가"])
def test_hardly_any_token_gives_a_finite_loss(model, tokenizer, text):
    assert model(**tokenizer([text], return_tensors="pt")).loss.isfinite()


def test_a_second_layer_would_have_read_the_answer():
    with pytest.raises(ValueError, match="num_hidden_layers must be 1 in pretraining, got 2"):
        BiLSTMForPreTraining(BiLSTMCRFConfig(vocab_size=9, num_hidden_layers=2))


# ---------------------------------------------------------------- what later models take from it


@pytest.mark.parametrize("model_class", [BiLSTMCRFForTokenClassification, BiLSTMForSequenceClassification])
@pytest.mark.parametrize("count", [len(TAGS), 3], ids=["as many labels", "fewer labels"])
def test_models_take_the_body_and_nothing_else(checkpoint, model_class, count):
    model, info = model_class.from_pretrained(checkpoint, **label_maps(LABELS[:count]), output_loading_info=True)
    saved = load_file(checkpoint / "model.safetensors")
    body = {name: weights for name, weights in saved.items() if name.startswith("bilstm.")}
    assert {name for name in model.state_dict() if name.startswith("bilstm.")} == set(body)
    for name, weights in body.items():
        assert model.state_dict()[name].equal(weights)
    assert info["missing_keys"] == {name for name in model.state_dict() if not name.startswith("bilstm.")}
    assert set(info["unexpected_keys"]) == set(saved) - set(body)


@pytest.mark.parametrize("labels", [LABELS, TAGS], ids=["others", "the same"])
def test_labels_of_pretraining_give_way_to_those_of_the_task(checkpoint, model, tokenizer, labels):
    arguments = ModelArguments(
        model_name_or_path=str(checkpoint), config_overrides={"locked_dropout": 0.25, "num_hidden_layers": 2}
    )
    tagger = load_model(arguments, tokenizer, labels)
    assert tagger.config.id2label == dict(enumerate(labels))
    assert tagger.config.label2id == {label: i for i, label in enumerate(labels)}
    assert tagger.bilstm.locked_dropout.p == 0.25
    assert len(tagger.bilstm.layers) == 2
    for name, weights in model.bilstm.named_parameters():
        assert tagger.bilstm.get_parameter(name).equal(weights)
    classifier = load_model(
        ModelArguments(model_name_or_path=str(checkpoint)), tokenizer, ["부정", "긍정"], CLASSIFICATION
    )
    assert classifier.config.id2label == {0: "부정", 1: "긍정"}


def test_unknown_overrides_of_a_pretrained_model_are_refused(checkpoint, tokenizer):
    arguments = ModelArguments(model_name_or_path=str(checkpoint), config_overrides={"dropout": 0.1})
    with pytest.raises(ValueError, match="BiLSTMCRFConfig has no field dropout"):
        load_model(arguments, tokenizer, LABELS)


def test_auto_class_knows_the_model(checkpoint):
    assert isinstance(AutoModelForPreTraining.from_pretrained(checkpoint), BiLSTMForPreTraining)


@pytest.mark.slow
def test_remote_code_in_a_clean_process(checkpoint, model, tokenizer, texts, tmp_path):
    found = run_without_package(
        f"""
        import json, torch
        from transformers import AutoModel, AutoModelForPreTraining, AutoModelForTokenClassification, AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained({str(checkpoint)!r}, trust_remote_code=True)
        batch = tokenizer({texts!r}, padding=True, return_tensors="pt")
        names, answers = [], []
        for kind in (AutoModelForPreTraining, AutoModel, AutoModelForTokenClassification):
            model = kind.from_pretrained({str(checkpoint)!r}, trust_remote_code=True)
            names.append(type(model).__name__)
            body = getattr(model, "bilstm", model).eval()
            answers.append(body(**batch).last_hidden_state.tolist())
            if kind is AutoModelForPreTraining:
                torch.manual_seed(1)
                loss = model(**batch).loss.item()
        print(json.dumps([names, answers, loss]))
        """,
        tmp_path,
    )
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model.bilstm(**batch).last_hidden_state
        torch.manual_seed(1)
        loss = model(**batch).loss.item()
    assert found[0] == ["BiLSTMForPreTraining", "BiLSTMCRFModel", "BiLSTMCRFForTokenClassification"]
    for answer in found[1]:
        assert_close(torch.tensor(answer), hidden, atol=1e-6, rtol=1e-5)
    assert found[2] == pytest.approx(loss, rel=1e-5)


# ---------------------------------------------------------------- the recipe


@pytest.fixture(scope="module")
def sample_texts() -> list[str]:
    lines = (RECIPES / "data" / "ner" / "train.txt").read_text(encoding="utf-8").splitlines()
    return [parse_inline(line)[0] for line in lines[:80]]


OPTIONS = ("--config_overrides", json.dumps(SMALL), "--validation_texts", "16", "--min_frequency", "1")


def run_recipe(name: str, folder: Path, *arguments: str) -> None:
    command = [sys.executable, RECIPES / name, "--use_cpu", "true", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_the_tagging_recipe_starts_from_what_this_one_leaves(sample_texts, tmp_path):
    """A step of length zero, so that the body and the tokenizer must be those of pretraining."""
    (tmp_path / "raw.txt").write_text("\n".join(sample_texts), encoding="utf-8")
    run_recipe("pretrain.py", tmp_path, "--input_file", "raw.txt", "--output_dir", "pretrained", *OPTIONS)
    files = {path.name for path in (tmp_path / "pretrained").iterdir() if path.is_file()}
    assert {"model.safetensors", "tokenizer.json", "modeling_pretraining.py", "modeling_bilstm_crf.py"} <= files
    state = json.loads(next((tmp_path / "pretrained").glob("checkpoint-*/trainer_state.json")).read_text())
    assert any("eval_loss" in entry for entry in state["log_history"])

    small = ("--max_train_samples", "32", "--max_eval_samples", "8", "--num_train_epochs", "1", "--learning_rate", "0")
    overrides = ("--config_overrides", '{"locked_dropout": 0.25}')
    arguments = ("--model_name_or_path", "pretrained", "--output_dir", "tagger", *overrides)
    run_recipe("ner.py", tmp_path, *arguments, *small)
    config = json.loads((tmp_path / "tagger" / "config.json").read_text())
    assert (config["locked_dropout"], config["hidden_size"]) == (0.25, 24)
    assert {label[:2] for label in config["id2label"].values()} == {"B-", "I-", "O"}
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("pretrained", "tagger"))
    body = {name for name in before if name.startswith("bilstm.")}
    assert body == {name for name in after if name.startswith("bilstm.")}
    assert all(before[name].equal(after[name]) for name in body)
    vocabularies = [
        json.loads((tmp_path / name / "tokenizer.json").read_text())["model"] for name in ("pretrained", "tagger")
    ]
    assert vocabularies[0] == vocabularies[1]


@pytest.mark.slow
def test_the_recipe_learns_the_tags_of_morphemes(sample_texts, tmp_path, monkeypatch):
    pytest.importorskip("kiwipiepy")
    monkeypatch.setattr(pretrain, "dictionary_names", lambda: ["서울", "춘천"])
    (tmp_path / "raw.txt").write_text("\n".join(sample_texts), encoding="utf-8")
    files = ["--input_file", str(tmp_path / "raw.txt"), "--output_dir", str(tmp_path / "out")]
    pretrain.main([*files, *OPTIONS, "--morphemes", "true", "--use_cpu", "true", "--max_steps", "2"])
    model = BiLSTMForPreTraining.from_pretrained(tmp_path / "out")
    characters = [[(i, i + 1) for i in range(len(text))] for text in [*sample_texts, "서울", "춘천"]]
    tags = {tag for row in morpheme_tags([*sample_texts, "서울", "춘천"], characters) for tag in row} - {None}
    assert len(tags) - 1 <= model.config.num_labels <= len(tags)


@pytest.mark.parametrize("option", ["model_name_or_path", "embeddings_from", "embeddings_file"])
def test_the_recipe_takes_no_weights(tmp_path, monkeypatch, option):
    with pytest.raises(ValueError, match="pretraining starts from random weights"):
        pretrain.main(["--input_file", "raw.txt", f"--{option}", "somewhere"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--validation_texts", "99"), "there are 3 texts: give more than the 99 for validation"),
        (("--config_overrides", '{"hidden_size": "a"}'), "config_overrides: .*expected int, got str"),
        (("--metric_for_best_model", "f1", "--validation_texts", "1"), "metric_for_best_model is f1: set loss"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(tmp_path, argv, message):
    (tmp_path / "raw.txt").write_text("좋은 날\n나쁜 날\n추운 날", encoding="utf-8")
    options = ["--input_file", str(tmp_path / "raw.txt"), "--validation_texts", "1", "--min_frequency", "1"]
    options += ["--output_dir", str(tmp_path / "out"), "--use_cpu", "true"]
    with pytest.raises(ValueError, match=message):
        pretrain.main([*options, *argv])
    assert not (tmp_path / "out").exists()
