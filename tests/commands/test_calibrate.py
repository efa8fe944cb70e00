"""The command `calibrate`: the temperature that it finds, what it writes, and that it writes all of it or nothing."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import LABELS, SENTENCES, new_tagger
from transformers import BertConfig, BertForTokenClassification

from bilstm_crf_hf import BiLSTMCRFTokenClassificationPipeline
from bilstm_crf_hf.alignment import render, spans_from_token_tags
from bilstm_crf_hf.commands import calibrate
from bilstm_crf_hf.evaluation.tasks import label_maps

TEMPERATURE = 2.0


@pytest.fixture(scope="module")
def sampled(tokenizer, tmp_path_factory) -> Path:
    """A tagger, and sentences of two words with tags that are drawn from it at a temperature."""
    folder = tmp_path_factory.mktemp("sampled")
    model = new_tagger(tokenizer)
    torch.manual_seed(1)
    syllables = [token for token in tokenizer.get_vocab() if len(token) == 1 and "가" <= token <= "힣"]
    texts = ["".join(syllables[i] for i in torch.randint(len(syllables), (4,))) for _ in range(600)]
    batch = tokenizer(texts, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")
    with torch.no_grad():
        emissions, sequences = model.emissions(**batch)  # (T, B, K)
    crf = model.crf
    assert sequences.lengths.tolist() == [4] * len(texts)
    paths = torch.tensor(list(itertools.product(range(len(LABELS)), repeat=4)))
    potentials = crf.potentials().float()
    moves = potentials[-1, paths[:, 0]] + potentials[paths[:, :-1], paths[:, 1:]].sum(1) + potentials[paths[:, -1], -1]
    lines = []
    for i, text in enumerate(texts):
        scores = moves + emissions[torch.arange(4), i][torch.arange(4), paths].sum(1)
        path = paths[torch.multinomial((scores / TEMPERATURE).softmax(0), 1)[0]].tolist()
        tags = [None, *(LABELS[tag] for tag in path), None]
        lines.append(render(text, spans_from_token_tags(text, offsets[i].tolist(), tags)))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "model" / "all_results.json").write_text('{"eval_f1": 0.5}', encoding="utf-8")
    (folder / "sampled.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_temperature_that_labels_were_drawn_at_is_found(sampled, tokenizer, tmp_path, capsys):
    """Weights, code and entities stay the same, and the scores of the pipeline become those at this temperature."""
    folder = shutil.copytree(sampled / "model", tmp_path / "model")
    before = contents(folder)
    model = new_tagger(tokenizer)
    pipe = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)
    file = sampled / "sampled.txt"
    options = [f"--train_file={file}", "--validation_split_percentage=80", f"--test_file={file}"]
    for _ in range(2):  # a second run measures the same
        calibrate.main([f"--model_name_or_path={folder}", *options])
        after = contents(folder)
        assert {name for name in after if after[name] != before.get(name)} == {"config.json", "all_results.json"}
        config, results = (json.loads(after[name]) for name in ("config.json", "all_results.json"))
        assert config["temperature"] == pytest.approx(TEMPERATURE, rel=0.1)
        assert config == json.loads(before["config.json"]) | {"temperature": config["temperature"]}
        assert results["eval_f1"] == 0.5
        record = results["calibration"]
        assert (record["temperature"], record["source"]) == (config["temperature"], "train (80 % held out)")
        assert (record["validation"]["sentences"], record["test"]["sentences"]) == (480, 600)
        assert record["validation"]["without"]["ECE"] > 0.1
        assert record["validation"]["with"]["ECE"] < 0.05
        assert record["validation"]["with"]["Brier score"] < record["validation"]["without"]["Brier score"]
        printed = capsys.readouterr().out
        assert f"-> {record['test']['with']['ECE']:.4f}, Brier score" in printed
        assert f"temperature {config['temperature']}, saved in {folder / 'config.json'}" in printed

    plain = pipe("손흥민은 춘천에 산다")
    model.config.temperature = config["temperature"]
    calibrated = calibrate.load_tagger(folder).pipe("손흥민은 춘천에 산다")
    assert calibrated == pipe("손흥민은 춘천에 산다")
    assert [entity | {"score": 0} for entity in calibrated] == [entity | {"score": 0} for entity in plain]
    assert [entity["score"] for entity in calibrated] != [entity["score"] for entity in plain]


@pytest.mark.parametrize("held_out", [None, 20])
def test_sentences_of_the_training_are_refused(held_out, sampled, tmp_path):
    folder = shutil.copytree(sampled / "model", tmp_path / "model")
    run = {"arguments": {"validation_split_percentage": held_out}}
    (folder / "training_run.json").write_text(json.dumps(run), encoding="utf-8")
    options = [f"--train_file={sampled / 'sampled.txt'}", "--validation_split_percentage=80"]
    with pytest.raises(ValueError, match=f"validation_split_percentage is {held_out}, not 80: .* has been trained on"):
        calibrate.main([f"--model_name_or_path={folder}", *options])


def test_a_failure_leaves_the_folder_as_it_was(sampled, tokenizer, tmp_path, monkeypatch):
    folder = shutil.copytree(sampled / "model", tmp_path / "model")
    file = tmp_path / "data.txt"
    file.write_text("\n".join(SENTENCES), encoding="utf-8")
    arguments = [f"--model_name_or_path={folder}", f"--validation_file={file}"]
    before = contents(folder)

    def refused(error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            calibrate.main(arguments)
        assert contents(folder) == before

    def full(*args) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        patch.setattr(calibrate, "fit_temperature", lambda scored: 1.5)
        refused(OSError, "No space left")
    folder.joinpath("crf.py").write_text("# of an earlier version", encoding="utf-8")
    before = contents(folder)
    refused(ValueError, "crf.py is not that of this version: load the model with this version and save it again")
    names = label_maps(LABELS)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForTokenClassification(BertConfig(vocab_size=len(tokenizer), **shape, **names)).save_pretrained(folder)
    before = contents(folder)
    refused(ValueError, "BertForTokenClassification has no CRF: name a tagger with a CRF")
    with pytest.raises(FileNotFoundError, match="no such folder: name that of a trained tagger"):
        calibrate.main(["--model_name_or_path=klue/tagger", f"--validation_file={file}"])
