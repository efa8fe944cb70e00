"""New entity types on trained taggers, against the taggers as they were and against enumerated paths."""

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import LABELS, SENTENCES, new_reader, new_tagger
from corpora import read_corpus
from torch.testing import assert_close
from transformers import BertConfig, BertForTokenClassification, pipeline

from bilstm_crf_hf import BiLSTMCRFForTokenClassification, EncoderCRFForTokenClassification
from bilstm_crf_hf.commands import ner
from bilstm_crf_hf.data.encoding import EncodedCorpus
from bilstm_crf_hf.evaluation.tasks import label_maps
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor
from bilstm_crf_hf.training.arguments import ModelArguments, TaggerArguments
from bilstm_crf_hf.training.distillation import with_own_posteriors
from bilstm_crf_hf.training.loading import load_model
from bilstm_crf_hf.training.new_labels import labels_to_add, with_labels

NEW = ["B-OG", "I-OG"]


def bert(tokenizer):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForTokenClassification(BertConfig(vocab_size=len(tokenizer), **shape, **label_maps(LABELS))).eval()


def encoder_crf(tokenizer, folder):
    bert(tokenizer).bert.save_pretrained(folder)
    return EncoderCRFForTokenClassification.from_encoder(folder, tokenizer, **label_maps(LABELS)).eval()


TAGGERS = {
    "bilstm": lambda tokenizer, _: new_tagger(tokenizer, seed=3),
    "unconstrained": lambda tokenizer, _: new_tagger(tokenizer, seed=4, constrained=False),
    "morphemes": lambda tokenizer, _: new_reader(tokenizer),
    "encoder with a CRF": encoder_crf,
    "encoder": lambda tokenizer, _: bert(tokenizer),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "morphemes")) for name in TAGGERS]
)
def test_a_tagger_says_with_new_labels_what_it_said_without(name, tokenizer, texts, tmp_path):
    """Its best paths are the same; other probabilities change by what the new labels get."""
    tagger = TAGGERS[name](tokenizer, tmp_path / "encoder")
    tagger.save_pretrained(tmp_path / "old")
    arguments = ModelArguments(model_name_or_path=str(tmp_path / "old"))
    grown = load_model(arguments, tokenizer, ["B-DT", "I-DT", *NEW, "O"]).eval()
    assert [grown.config.id2label[i] for i in range(9)] == LABELS + NEW
    processor = BiLSTMCRFProcessor(tokenizer, tagger.config)
    for text in texts:
        inputs = {key: torch.tensor(rows) for key, rows in processor([text]).inputs.items()}
        with torch.no_grad():
            before, after = tagger(**inputs), grown(**inputs)
        inside = after.logits[0].softmax(-1)[1:-1]
        if "predictions" in before:
            assert after.predictions.equal(before.predictions)
        else:
            assert inside.argmax(-1).equal(before.logits[0, 1:-1].argmax(-1))
        assert_close(inside[:, :7], before.logits[0].softmax(-1)[1:-1], atol=0.1, rtol=0)


def test_rows_of_known_labels_are_kept_and_transitions_of_new_ones_are_those_of_o(tokenizer):
    tagger = new_tagger(tokenizer)
    grown = with_labels(tagger, NEW)
    before, after = tagger.state_dict(), grown.state_dict()
    for name in before:
        assert after[name][tuple(slice(size) for size in before[name].shape)].equal(before[name])
    outside = LABELS.index("O")
    assert after["classifier.bias"][7:].tolist() == [-3, -3]
    assert after["crf.transitions"][7, :7].equal(before["crf.transitions"][outside])
    assert after["crf.transitions"][:7, 8].equal(before["crf.transitions"][:, outside])
    assert after["crf.end_transitions"][8] == before["crf.end_transitions"][outside]


def test_the_log_names_the_types_that_are_kept_and_those_that_are_new(tagger, tokenizer, tmp_path, caplog):
    tagger.save_pretrained(tmp_path)
    with caplog.at_level("INFO", "bilstm_crf_hf"):
        load_model(ModelArguments(model_name_or_path=str(tmp_path)), tokenizer, ["B-OG", "I-OG", "B-QT", "I-QT", "O"])
    assert f"{tmp_path} keeps the entity types DT, LC, PS and gets the new ones OG, QT" in caplog.messages


def test_new_labels_follow_the_scheme_of_the_model():
    bioes = ["O", "B-PS", "I-PS", "E-PS", "S-PS"]
    assert labels_to_add(bioes, ["B-OG", "I-OG", "B-PS", "I-PS", "O"]) == ["B-OG", "I-OG", "E-OG", "S-OG"]
    assert labels_to_add(LABELS, ["O", "I-OG", "B-OG"]) == NEW


def test_types_that_differ_in_case_are_an_error(tagger, tokenizer, tmp_path):
    tagger.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the data have the entity type Ps, the model has PS: rename it in the data"):
        load_model(ModelArguments(model_name_or_path=str(tmp_path)), tokenizer, ["B-Ps", "I-Ps", "O"])


def test_a_saved_tagger_with_new_labels_serves_the_pipeline(tagger, tokenizer, texts, tmp_path):
    for name, model in (("old", tagger), ("grown", with_labels(tagger, NEW))):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    old, grown = (
        pipeline("token-classification", str(tmp_path / name), trust_remote_code=True)(texts)
        for name in ("old", "grown")
    )
    assert [[(e["entity_group"], e["start"], e["end"]) for e in row] for row in grown] == [
        [(e["entity_group"], e["start"], e["end"]) for e in row] for row in old
    ]


# ---------------------------------------------------------------- holding on to the old types


def corpus_of(sentences, tokenizer, labels, folder) -> EncodedCorpus:
    path = folder / "corpus.txt"
    path.write_text("\n".join(sentences), encoding="utf-8")
    return EncodedCorpus(read_corpus(path), BiLSTMCRFProcessor(tokenizer), labels)


def enumerated_marginals(tagger, text_ids, allowed) -> torch.Tensor:
    """Compute the probabilities (T, K) of the labels of a tagger from all paths of `allowed` labels."""
    with torch.no_grad():
        emissions = tagger.emissions(torch.tensor([text_ids]))[0][:, 0].double()
    crf = tagger.crf.double()
    start, steps, end = crf.start_transitions.detach(), crf.transitions.detach(), crf.end_transitions.detach()
    paths, scores = [], []
    for path in itertools.product(*allowed):
        tags = ["O", *(LABELS[i] for i in path)]
        if any(b[0] == "I" and a[2:] != b[2:] for a, b in zip(tags, tags[1:])):
            continue
        score = start[path[0]] + end[path[-1]] + sum(emissions[t, i] for t, i in enumerate(path))
        paths.append(path)
        scores.append(score + sum(steps[i, j] for i, j in zip(path, path[1:])))
    weights = torch.stack(scores).softmax(0)
    marginals = torch.zeros(len(allowed), len(LABELS), dtype=torch.float64)
    for path, weight in zip(paths, weights):
        marginals[range(len(path)), path] += weight
    return marginals


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_soft_labels_are_the_old_models_posterior_given_the_new_entities(share, tokenizer, tmp_path):
    """The corpus has OG, which is new, and PS. DT and LC, which it lacks, may be anywhere else.

    The old model has no OG: it reads O there."""
    sentences = ["<부산:OG>에 <김:PS>은", "서울<로:OG>"]
    tagger = new_tagger(tokenizer, seed=5)
    labels = LABELS + NEW
    corpus = corpus_of(sentences, tokenizer, labels, tmp_path)
    rows = with_own_posteriors(with_labels(tagger, NEW), corpus, share, batch_size=2)
    plain = corpus.inputs
    assert rows["input_ids"][:] == plain["input_ids"][:]
    free = [LABELS.index(label) for label in ("B-DT", "I-DT", "B-LC", "I-LC", "O")]
    for row, gold in zip(rows, plain["labels"][:], strict=True):
        gold_names = [labels[i] for i in gold[1:-1]]
        allowed = [free if name == "O" else [LABELS.index("O" if name in NEW else name)] for name in gold_names]
        expected = torch.zeros(len(gold_names), len(labels), dtype=torch.float64)
        expected[:, :7] = enumerated_marginals(tagger, row["input_ids"], allowed)
        for t, name in enumerate(gold_names):
            if name in NEW:
                expected[t] = torch.nn.functional.one_hot(torch.tensor(labels.index(name)), len(labels))
        expected *= share
        expected[range(len(gold_names)), gold[1:-1]] += 1 - share
        soft = torch.tensor(row["soft_labels"]).view(-1, len(labels))
        assert_close(soft[1:-1].double(), expected, atol=1e-3, rtol=0)  # float16
        assert not soft[[0, -1]].any()
        assert row["labels"][0] == row["labels"][-1] == -100
        for name, label in zip(gold_names, row["labels"][1:-1], strict=True):
            assert labels[label] == name or name == "O" and label in free


def test_a_corpus_with_all_types_and_a_model_without_a_crf_are_refused(tagger, tokenizer, tmp_path):
    corpus = corpus_of(SENTENCES, tokenizer, LABELS, tmp_path)
    with pytest.raises(ValueError, match=r"they have some of all types of the model \(DT, LC, PS\): leave it out"):
        with_own_posteriors(tagger, corpus, 1.0, 8)
    with pytest.raises(ValueError, match="taggers with a CRF, which BertForTokenClassification lacks"):
        with_own_posteriors(bert(tokenizer), corpus, 1.0, 8)


@pytest.mark.parametrize("fields", [{}, {"head": "new", "model_name_or_path": "model"}])
def test_holding_on_needs_a_trained_tagger(fields):
    with pytest.raises(ValueError, match="distill_from_self is for a trained tagger with its own head: name it"):
        TaggerArguments(distill_from_self=1.0, **fields)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a tagger of DT, LC and PS, and sentences whose only entities are of OG; `all.txt` has all types."""
    folder = tmp_path_factory.mktemp("trained")
    everything = [sentence.replace("손흥민:PS", "손흥민:OG").replace("부산:LC", "부산:OG") for sentence in SENTENCES]
    for name, types in {"old": "DT|LC|PS", "new": "OG", "all": "DT|LC|PS|OG"}.items():
        rows = [re.sub(rf"<([^<>]*):(?!{types})\w+>", r"\1", sentence) for sentence in everything]
        (folder / f"{name}.txt").write_text("\n".join(rows), encoding="utf-8")
    shape = {"embedding_size": 16, "hidden_size": 32, "ngrams": [], "locked_dropout": 0.0, "word_dropout": 0.0}
    options = ["--config_overrides", json.dumps(shape), "--num_train_epochs", "30", "--min_frequency", "1"]
    train(folder, "old", "old", "tagger", *options)
    return folder


def train(folder, rows, validation, output, *options) -> dict:
    """Train a tagger with files in a folder, with a checkpoint each 40 steps; return the results."""
    files = ("--train_file", str(folder / f"{rows}.txt"), "--validation_file", str(folder / f"{validation}.txt"))
    how = ["--per_device_train_batch_size", "2", "--learning_rate", "0.02", "--use_cpu", "true"]
    how += ["--eval_strategy", "no", "--load_best_model_at_end", "false", "--save_strategy", "steps"]
    how += ["--save_steps", "40", "--save_total_limit", "9", "--output_dir", str(folder / output)]
    ner.main([*files, *how, *options])
    return json.loads((folder / output / "all_results.json").read_text("utf-8"))


@pytest.mark.slow
def test_a_tagger_learns_a_type_and_forgets_the_others_unless_it_holds_on_to_them(trained, caplog):
    options = ["--model_name_or_path", str(trained / "tagger"), "--entity_types", "DT", "LC", "OG", "PS"]
    options += ["--num_train_epochs", "20"]
    forgets = train(trained, "new", "all", "forgets", *options)
    assert "train: no entity of DT, LC, PS: the model forgets what it knows of them" in caplog.text
    holds = train(trained, "new", "all", "holds", *options, "--distill_from_self", "1.0")
    assert min(forgets["eval_OG_f1"], holds["eval_OG_f1"]) > 0.8
    for name in ("DT", "LC", "PS"):
        assert forgets.get(f"eval_{name}_f1") == 0
        assert holds[f"eval_{name}_f1"] > 0.8
    # It can be resumed, but not with other posteriors.
    shutil.rmtree(trained / "holds" / "checkpoint-80")
    resume = [*options, "--distill_from_self", "1.0", "--resume_from_checkpoint", "true"]
    again = train(trained, "new", "all", "holds", *resume)
    same = [name for name in holds if "second" not in name and not name.endswith("runtime")]
    assert {name: again[name] for name in same} == {name: holds[name] for name in same}
    with pytest.raises(ValueError, match=r"distill_from_self was 1.0, is 0.5; training data was"):
        train(trained, "new", "all", "holds", *resume, "--distill_from_self", "0.5")


@pytest.mark.slow
def test_validation_data_without_the_old_types_are_named(trained, caplog):
    options = ["--model_name_or_path", str(trained / "tagger"), "--max_steps", "1", "--distill_from_self", "1.0"]
    train(trained, "new", "new", "few", *options)
    assert "validation: no entity of DT, LC, PS: those that the model finds count as errors" in caplog.text


@pytest.mark.slow
def test_a_model_without_types_of_its_own_cannot_hold_on(trained, tmp_path):
    BiLSTMCRFForTokenClassification.from_pretrained(trained / "tagger").bilstm.save_pretrained(tmp_path)
    arguments = TaggerArguments(model_name_or_path=str(tmp_path), distill_from_self=1.0)
    with pytest.raises(ValueError, match="has no entity types to hold on to: leave out distill_from_self"):
        load_model(arguments, None, LABELS)
