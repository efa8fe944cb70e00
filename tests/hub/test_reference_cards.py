"""The cards of the reference runs, in model_cards: of their runs, in the index, and with a snippet that runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import LABELS, new_tagger
from hub_server import Blob, HubServer, Repository
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, BertConfig, BertModel

from bilstm_crf_hf import (
    BiLSTMForSequenceClassification,
    EncoderCRFForTokenClassification,
    EncoderForSequenceClassification,
)
from bilstm_crf_hf.evaluation.tasks import label_maps
from bilstm_crf_hf.hub.model_card import check_card
from bilstm_crf_hf.hub.publishing import PINNED, files_of

FOLDER = Path(__file__).parents[2] / "model_cards"
CARDS = sorted(path.parent.name for path in FOLDER.glob("*/all_results.json"))
CLASSES = label_maps(["부정", "긍정"])
TAGS = label_maps(LABELS)


def results_of(name: str) -> dict:
    return json.loads((FOLDER / name / "all_results.json").read_text(encoding="utf-8"))


def test_all_systems_of_the_reference_runs_have_a_card():
    tagging = {
        "klue-ner-morphemes",
        "klue-ner-distilled",
        "klue-ner",
        "klue-ner-blog",
        "klue-ner-transplanted",
        "klue-ner-frozen",
        "klue-ner-e5",
    }
    languages = {"conll2003", "conll2002-nl", "wnut17"}
    assert set(CARDS) == tagging | languages | {"nsmc", "nsmc-e5", "emotion", "emotion-e5", "emotion-merged"}
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert {f"{name}/README.md" for name in CARDS} <= set(re.findall(r"\]\(([^)]+)\)", index))


@pytest.mark.parametrize("name", CARDS)
def test_a_card_has_what_the_hub_asks_for(name):
    data = ModelCard.load(FOLDER / name / "README.md").data
    for field in ("language", "license", "library_name", "pipeline_tag", "tags", "metrics", "eval_results"):
        assert getattr(data, field), field
    script = {"ko": "[가-힣]", "ja": "[一-龯]"}.get(data.language, "[A-Z][a-z]")
    assert all(re.search(script, sentence["text"]) for sentence in data.widget)


@pytest.mark.parametrize("name", CARDS)
def test_each_figure_is_that_of_the_run(name):
    card, results = ModelCard.load(FOLDER / name / "README.md"), results_of(name)
    check_card(card, results, FOLDER / name / "README.md")
    rounded = {f"{value:.4f}" for value in results.values() if isinstance(value, float)}
    section = re.search(r"## Results\n(.*?)(\nComparison with other systems|## Training)", card.text, re.DOTALL)[1]
    scores = re.findall(r"\| (0\.\d{4}|1\.0000) (?=\|)", section)
    assert len(scores) > 4
    assert set(scores) <= rounded
    assert f"{results['parameters']:,} parameters" in card.text
    assert f"{results['train_sentences']:,} texts, {results['epochs']} epochs" in card.text


@pytest.mark.slow
@pytest.mark.parametrize("name", CARDS)
def test_the_snippet_runs(name, tokenizer, tmp_path):
    """At the address that it names, on a Hub on this machine, with a tiny model of the card's architecture there."""
    text = ModelCard.load(FOLDER / name / "README.md").text
    ((repo_id, revision),) = PINNED.findall(text)
    folder = tmp_path / "model"
    tiny_model(re.search("`(.+?)`", text)[1], tokenizer, tmp_path / "encoder").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    repository = Repository(repo_id, private=False)
    files = {name: Blob(path.read_bytes()) for name, path in files_of(folder).items()}
    repository.tags[revision] = repository.commit("main", "a tiny model", files)
    (snippet,) = re.findall("```python\n(.*?)```", text, re.DOTALL)
    with HubServer() as hub:
        hub.repositories[repo_id] = repository
        code = f"import sys\nsys.modules['bilstm_crf_hf'] = None\n{snippet}"
        options = {"env": hub.environment(tmp_path / "home", token=None), "capture_output": True, "text": True}
        done = subprocess.run([sys.executable, "-c", code], **options, check=False)
    assert done.returncode == 0, done.stderr
    assert re.match(r"\[({'|\])", done.stdout.splitlines()[-1])


def tiny_model(architecture: str, tokenizer, folder: Path):
    torch.manual_seed(0)
    if architecture == "BiLSTMCRFForTokenClassification":
        return new_tagger(tokenizer)
    if architecture == "BiLSTMForSequenceClassification":
        return BiLSTMForSequenceClassification.from_tokenizer(tokenizer, hidden_size=8, ngram_buckets=16, **CLASSES)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    if architecture == "BertForTokenClassification":
        return AutoModelForTokenClassification.from_pretrained(folder, **TAGS)
    if architecture == "BertForSequenceClassification":
        return AutoModelForSequenceClassification.from_pretrained(folder, **CLASSES)
    heads = {each.__name__: each for each in (EncoderCRFForTokenClassification, EncoderForSequenceClassification)}
    names = TAGS if architecture == "EncoderCRFForTokenClassification" else CLASSES
    return heads[architecture].from_encoder(str(folder), tokenizer, **names)
