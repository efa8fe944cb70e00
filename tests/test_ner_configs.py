"""Every configuration of recipes/ner.py, with a tiny encoder in place of the one it names, on a few sentences."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import BertConfig, BertModel, pipeline

from bilstm_crf_hf.corpora import load_ner_datasets
from bilstm_crf_hf.tokenization import build_character_tokenizer

RECIPES = Path(__file__).parents[1] / "recipes"
DATA = {split: RECIPES / "data" / "ner" / f"{split}.txt" for split in ("train", "validation")}
CONFIGS = sorted(
    path.stem for path in (RECIPES / "configs").glob("*.yaml") if "ner" in path.stem or path.stem == "sample"
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = build_character_tokenizer(load_ner_datasets(data_files=DATA)["train"]["text"])
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_trains_and_leaves_a_model_that_tags(name, encoder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    import ner

    config = RECIPES / "configs" / f"{name}.yaml"
    values = yaml.safe_load(config.read_text("utf-8"))
    named = [key for key in ("model_name_or_path", "tokenizer_name", "embeddings_from") if key in values]
    options = {f"{split}_file": path for split, path in DATA.items()} | dict.fromkeys(named, encoder)
    options |= {"num_train_epochs": 1, "max_train_samples": 32, "max_eval_samples": 8, "report_to": "none"}
    options |= {"output_dir": tmp_path / "out", "use_cpu": True}
    ner.main([str(config), *(str(part) for key, value in options.items() for part in (f"--{key}", value))])
    results = json.loads((tmp_path / "out" / "all_results.json").read_text("utf-8"))
    assert results["seed"] == values.get("seed", 42)
    assert results["validation_sentences"] == 8
    tagger = pipeline("token-classification", str(tmp_path / "out"), trust_remote_code=True)
    assert isinstance(tagger("손흥민은 춘천에서 태어났다."), list)
    frozen = values.get("freeze_embeddings", False)
    weight = tagger.model.get_input_embeddings().weight.detach()
    if "embeddings_from" in values:
        rows = BertModel.from_pretrained(encoder).get_input_embeddings().weight.detach()
        assert torch.allclose(weight, rows / rows.norm(dim=1).mean()) == frozen
