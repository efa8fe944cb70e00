"""Exported graphs against the models that they come from."""

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import onnxruntime
import pytest
import torch
from conftest import SENTENCES, new_reader, new_tagger

from bilstm_crf_hf import BiLSTMCRFTokenClassificationPipeline
from bilstm_crf_hf.inference.onnx import export_onnx

pytestmark = pytest.mark.slow

ODD_TEXTS = ["서\u0301울에서 👨‍👩‍👧 ㈜김㎞", "１９９２년\t보고ㄳ ㅋㅠ\u200b 가", "\u202e서울\u3000부산\r\n춘천"]

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module", params=[1, 2], ids=["one layer", "two layers"])
def exported(request, tokenizer, tmp_path_factory):
    """A tagger and a session of its graph."""
    model = new_tagger(
        tokenizer, num_hidden_layers=request.param, jamo_embedding_size=4, ngrams=[[-1, 0], [0, 2]], temperature=1.7
    )
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, path)
    return model, onnxruntime.InferenceSession(path)


def assert_same_paths(model, session, batch) -> None:
    with torch.no_grad():
        expected = model(**batch).predictions
    (predictions,) = session.run(None, {name: value.numpy() for name, value in batch.items()})
    assert torch.from_numpy(predictions).equal(expected)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_paths_are_those_of_the_model_for_any_batch(exported, tokenizer, texts, size, padding_side):
    for start in range(0, len(texts), size):
        batch = tokenizer(
            texts[start : start + size],
            padding=True,
            padding_side=padding_side,
            return_token_type_ids=False,
            return_tensors="pt",
        )
        assert_same_paths(*exported, batch)


def test_paths_of_random_tokens_are_those_of_the_model(exported, tokenizer):
    generator = torch.Generator().manual_seed(0)
    for length in (1, 2, 50, 300):
        input_ids = torch.randint(len(tokenizer), (5, length), generator=generator)
        mask = (torch.rand(5, length, generator=generator) < 0.9).long()
        assert_same_paths(*exported, {"input_ids": input_ids, "attention_mask": mask})


def test_sentences_without_tokens_have_no_predictions(exported, tokenizer):
    batch = tokenizer(["", "서울", "   "], padding=True, return_token_type_ids=False, return_tensors="pt")
    assert_same_paths(*exported, batch)


def test_a_graph_holds_no_path_of_the_machine_that_wrote_it(tagger, tmp_path):
    export_onnx(tagger, tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    assert b"predictions" in content
    assert str(Path(__file__).parents[2]).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content


@pytest.mark.parametrize("reads_morphemes", [False, True])
def test_the_recipe_exports_a_folder_that_works_without_torch(reads_morphemes, tagger, tokenizer, tmp_path):
    if reads_morphemes:
        tagger = new_reader(tokenizer)
    model, folder = tmp_path / "model", tmp_path / "onnx"
    tagger.save_pretrained(model)
    tokenizer.save_pretrained(model)
    (tmp_path / "tagged.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    options = ["--output_dir", folder, "--int8", "--file", "tagged.txt"]
    command = [sys.executable, RECIPES / "export_onnx.py", model, *options]
    report = run(command, tmp_path)
    assert "all of 8 paths" in report
    assert report.count("F1 ") == 2
    files = {"model.onnx", "model_int8.onnx", "tokenizer.json", "config.json", "onnx_inference.py", "alignment.py"}
    code = {"morphemes.py"} if reads_morphemes else set()
    assert {path.name for path in folder.iterdir()} == files | code

    text = "손흥민은 어제 서울에서 김연아를 만났다."
    texts = [text, unicodedata.normalize("NFD", text), *ODD_TEXTS, "서울 " * 600]  # more tokens than in the training
    blocked = "".join(f"sys.modules[{name!r}] = None; " for name in ("torch", "transformers", "bilstm_crf_hf"))
    run_script = f"import runpy, sys; {blocked}runpy.run_path('onnx_inference.py')"
    command = [sys.executable, "-c", run_script, "model.onnx", *texts]
    output = run(command, folder)
    if reads_morphemes:
        without_kiwi = run_script.replace("runpy.run", "sys.modules['kiwipiepy'] = None; runpy.run")
        with pytest.raises(AssertionError, match="morphemes need Kiwi: pip install kiwipiepy"):
            run([sys.executable, "-c", without_kiwi, "model.onnx", *texts], folder)
    pipe = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer)
    found = [[(entity["word"], entity["entity_group"]) for entity in row] for row in pipe(texts)]
    assert output == "".join(f"{text} {row}\n" for text, row in zip(texts, found))
    assert sum(map(bool, found)) > len(found) // 2


def run(command, folder) -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode()


def test_a_graph_that_disagrees_with_the_model_is_not_written(tagger, tokenizer, tmp_path, monkeypatch):
    tagger.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    from bilstm_crf_hf.commands import export_onnx as recipe

    monkeypatch.setattr(recipe, "export_onnx", lambda model, path: export_onnx(new_tagger(tokenizer, seed=1), path))
    (tmp_path / "tagged.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    with pytest.raises(RuntimeError, match="nothing is written"):
        recipe.main([str(tmp_path), "--file", str(tmp_path / "tagged.txt")])
    assert not (tmp_path / "onnx").exists()
