"""Exported graphs against the models that they come from, with and without PyTorch."""

import json
import logging
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import LABELS, SENTENCES, new_reader, new_tagger
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel, pipeline

from bilstm_crf_hf import (
    BiLSTMCRFForTokenClassification,
    BiLSTMCRFTokenClassificationPipeline,
    BiLSTMForSequenceClassification,
    EncoderCRFForTokenClassification,
    EncoderForSequenceClassification,
    load_pipeline,
)
from bilstm_crf_hf.commands import export_onnx as recipe
from bilstm_crf_hf.commands import predict, tag
from bilstm_crf_hf.commands.__main__ import main as run_command
from bilstm_crf_hf.data.tokenization import build_character_tokenizer
from bilstm_crf_hf.evaluation.tasks import label_maps
from bilstm_crf_hf.inference import onnx_inference
from bilstm_crf_hf.inference.onnx import activation, export_onnx, quantise
from bilstm_crf_hf.inference.onnx_inference import OnnxPipeline
from bilstm_crf_hf.inference.predictors import load_predictor
from bilstm_crf_hf.pipeline_bilstm_crf import render_entities
from bilstm_crf_hf.training.embeddings import word_hashes

pytestmark = pytest.mark.slow

ODD_TEXTS = [
    *(
        "서\u0301울에서 👨‍👩‍👧 ㈜김㎞",
        "１９９２년\t보고ㄳ ㅋㅠ\u200b 가",
        "\u202e서울\u3000부산\r\n춘천",
        "",
        "  ",
        "\u200b",
    ),
    *("[SEP] 서울[CLS]에서 [PAD]", "<손흥민:PS>은", "서울 " * 600),  # more tokens than in the training
]

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module", params=[1, 2], ids=["one layer", "two layers"])
def exported(request, tokenizer, tmp_path_factory):
    """A tagger and a session of its graph."""
    model = new_tagger(
        tokenizer, num_hidden_layers=request.param, jamo_embedding_size=4, ngrams=[[-1, 0], [0, 2]], temperature=1.7
    )
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, path, tokenizer)
    return model, onnxruntime.InferenceSession(path)


def assert_same_outputs(model, session, batch) -> None:
    with torch.no_grad():
        expected = model(**batch).predictions
        expected_emissions, sequences = model.emissions(**batch)
    inputs = {name: value.numpy() for name, value in batch.items()}
    predictions, emissions = session.run(None, inputs)
    assert torch.from_numpy(predictions).equal(expected)
    inside = sequences.inside
    torch.testing.assert_close(torch.from_numpy(emissions[: len(inside)])[inside], expected_emissions[inside])
    no_paths, same_emissions = session.run(None, inputs | {"decodes": np.array(False)})
    assert (no_paths == -100).all()
    assert np.array_equal(same_emissions[: len(inside)][inside], emissions[: len(inside)][inside])


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_outputs_are_those_of_the_model_for_any_batch(exported, tokenizer, texts, size, padding_side):
    for start in range(0, len(texts), size):
        batch = tokenizer(
            texts[start : start + size],
            padding=True,
            padding_side=padding_side,
            return_token_type_ids=False,
            return_tensors="pt",
        )
        assert_same_outputs(*exported, batch)


def test_outputs_of_random_tokens_are_those_of_the_model(exported, tokenizer):
    generator = torch.Generator().manual_seed(0)
    for length in (1, 2, 50, 300):
        input_ids = torch.randint(len(tokenizer), (5, length), generator=generator)
        mask = (torch.rand(5, length, generator=generator) < 0.9).long()
        assert_same_outputs(*exported, {"input_ids": input_ids, "attention_mask": mask})


def test_sentences_without_tokens_have_no_predictions(exported, tokenizer):
    batch = tokenizer(["", "서울", "   "], padding=True, return_token_type_ids=False, return_tensors="pt")
    assert_same_outputs(*exported, batch)


@pytest.mark.parametrize("int8", [False, True])
def test_a_graph_is_valid_and_holds_no_path_of_the_machine_that_wrote_it(int8, tagger, tokenizer, tmp_path):
    export_onnx(tagger, tmp_path / "model.onnx", tokenizer)
    path = tmp_path / "model.onnx"
    if int8:
        quantise(path, tmp_path / "model_int8.onnx")
        path = tmp_path / "model_int8.onnx"
    content = path.read_bytes()
    assert b"predictions" in content
    assert str(Path(__file__).parents[2]).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(tmp_path).encode() not in content
    onnx.checker.check_model(str(path), full_check=not int8)  # it does not know the types of quantised LSTMs


# ---------------------------------------------------------------- onnxruntime without PyTorch


def same_results(found, expected) -> bool:
    """Return whether two results of pipelines differ in scores only, by less than 1e-4."""
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same_results, found, expected))
    score = abs(found["score"] - expected["score"])
    return found | {"score": 0} == expected | {"score": 0} and score < 1e-4


def with_variants(texts: list[str]) -> list[str]:
    """Texts, odd ones, and all of them in decomposed Hangul."""
    texts = [*texts, *ODD_TEXTS]
    return texts + [unicodedata.normalize("NFD", text) for text in texts]


def run(command, folder) -> tuple[str, str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode(), result.stderr.decode()


READ = """
import json, sys
from onnx_inference import OnnxPipeline
print(json.dumps(OnnxPipeline(sys.argv[1])(json.loads(sys.argv[2]))))
"""


def run_without(modules: tuple[str, ...], code: str, folder: Path, *arguments: str) -> tuple[str, str]:
    """Run code in a folder in which some modules cannot be imported."""
    blocked = "".join(f"sys.modules[{name!r}] = None; " for name in modules)
    return run([sys.executable, "-c", f"import runpy, sys; {blocked}\n{code}", *arguments], folder)


@pytest.mark.parametrize("reads_morphemes", [False, True])
def test_the_recipe_exports_a_folder_that_works_without_torch(reads_morphemes, tagger, tokenizer, texts, tmp_path):
    if reads_morphemes:
        tagger = new_reader(tokenizer)
    model, folder = tmp_path / "model", tmp_path / "onnx"
    tagger.save_pretrained(model)
    tokenizer.save_pretrained(model)
    (tmp_path / "tagged.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    options = ["--output_dir", folder, "--int8", "--file", "tagged.txt"]
    report, _ = run([sys.executable, RECIPES / "export_onnx.py", model, *options], tmp_path)
    assert "all of 8 results" in report
    assert report.count("F1 ") == 2
    code = {"onnx_inference", "alignment", "batching", "entities", "morphemes", "processing_bilstm_crf"}
    code |= {"recursions", "threads"}
    assert {path.name for path in folder.iterdir()} == {f"{name}.py" for name in code} | {
        *("model.onnx", "model_int8.onnx", "tokenizer.json", "config.json")
    }

    others = ("torch", "transformers", "bilstm_crf_hf", "onnx")
    texts = with_variants(texts)
    expected = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer)(texts)
    output, _ = run_without(others, READ, folder, "model.onnx", json.dumps(texts))
    assert same_results(json.loads(output), expected)
    assert sum(map(bool, expected)) > len(texts) // 2

    lines = [text for text in texts if "\r" not in text]
    script = "runpy.run_path('onnx_inference.py', run_name='__main__')"
    output, _ = run_without(others, script, folder, ".", *lines)
    marked = map(render_entities, texts, expected)
    assert output == "".join(f"{line}\n" for text, line in zip(texts, marked) if text in lines)
    assert run([sys.executable, RECIPES / "onnx_inference.py", folder, *lines], tmp_path)[0] == output

    if reads_morphemes:
        output, warning = run_without((*others, "kiwipiepy"), READ, folder, "model.onnx", json.dumps(texts))
        tagger.config.read_morphemes = False  # the pipeline leaves them out
        expected_without = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer)
        tagger.config.read_morphemes = True
        assert same_results(json.loads(output), expected_without(texts))
        assert not same_results(expected_without(texts), expected)
        assert "pip install kiwipiepy" in warning


def test_a_graph_that_disagrees_with_the_model_is_not_written(tagger, tokenizer, tmp_path, monkeypatch):
    tagger.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tagged.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    command = [str(tmp_path), "--file", str(tmp_path / "tagged.txt")]
    other = new_tagger(tokenizer, seed=1)
    monkeypatch.setattr(recipe, "export_onnx", lambda model, *rest: export_onnx(other, *rest))
    with pytest.raises(RuntimeError, match="results equal PyTorch's: nothing is written"):
        recipe.main(command)
    monkeypatch.setattr(recipe, "same", lambda *_: np.array([True]))
    with pytest.raises(RuntimeError, match="paths of the graph differ from PyTorch's: nothing is written"):
        recipe.main(command)
    assert not (tmp_path / "onnx").exists()


def test_a_model_that_cannot_be_exported_is_named(tokenizer, tmp_path):
    from transformers import BertForTokenClassification

    BertForTokenClassification(small_encoder(BertConfig, tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="BertForTokenClassification is not exported here"):
        recipe.main([str(tmp_path), "--file", "none.txt"])


# ---------------------------------------------------------------- all models


def small_encoder(kind, tokenizer):
    return kind(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=42,
    )


def spread(model) -> None:
    """Let the hidden states of an untrained encoder differ as much as those of a trained one."""
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)


@pytest.mark.parametrize("lstm_layers", [0, 1])
@pytest.mark.parametrize("kind", [(BertConfig, BertModel), (RobertaConfig, RobertaModel)], ids=["BERT", "RoBERTa"])
def test_a_crf_on_an_encoder_reads_long_texts_in_windows(kind, lstm_layers, tokenizer, texts, tmp_path):
    torch.manual_seed(0)
    kind[1](small_encoder(kind[0], tokenizer)).save_pretrained(tmp_path)
    options = {"num_lstm_layers": lstm_layers, "lstm_hidden_size": 16, "temperature": 1.4}
    model = EncoderCRFForTokenClassification.from_encoder(
        str(tmp_path), tokenizer, **options, **label_maps(LABELS)
    ).eval()
    spread(model)
    with torch.no_grad():
        model.classifier.weight.mul_(30)
        for parameter in model.crf.parameters():
            parameter.uniform_(-1, 1)
    texts = with_variants(texts) + ["손흥민은 춘천에서 태어났다. " * i for i in range(1, 12)]
    tokenizer.save_pretrained(tmp_path)
    export_onnx(model, tmp_path / "model.onnx", tokenizer)
    expected = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)(texts)
    assert len({entity["entity_group"] for found in expected for entity in found}) == 3
    assert same_results(OnnxPipeline(tmp_path)(texts), expected)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
@pytest.mark.parametrize("on_encoder", [False, True])
def test_labels_and_scores_of_a_text_classifier_are_those_of_its_pipeline(
    problem, on_encoder, tokenizer, texts, tmp_path
):
    torch.manual_seed(0)
    options = {"problem_type": problem, "temperature": 1.3} | label_maps(["부정", "긍정", "중립"])
    call = {}
    if on_encoder:
        BertModel(small_encoder(BertConfig, tokenizer)).save_pretrained(tmp_path)
        model = EncoderForSequenceClassification.from_encoder(str(tmp_path), tokenizer, **options).eval()
        spread(model)
        call = {"truncation": True, "max_length": 42}
    else:
        model = BiLSTMForSequenceClassification.from_tokenizer(
            tokenizer, embedding_size=16, hidden_size=24, ngram_buckets=256, ngram_embedding_size=8, **options
        ).eval()
        with torch.no_grad():
            model.classifier.weight.mul_(10)
    tokenizer.save_pretrained(tmp_path)
    export_onnx(model, tmp_path / "model.onnx", tokenizer)
    texts = with_variants(texts)
    reference = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    expected, classifier = reference(texts, **call), OnnxPipeline(tmp_path)
    assert len({round(row["score"], 3) for row in expected}) > 5
    assert same_results(classifier(texts), expected)
    assert same_results(classifier(texts[0]), reference(texts[0], **call))


@pytest.mark.parametrize(
    ("problem", "num_labels"),
    [
        *((None, 1), (None, 2), ("regression", 1), ("regression", 2)),
        *(("single_label_classification", 2), ("multi_label_classification", 2)),
    ],
)
def test_scores_are_computed_as_the_pipeline_of_transformers_does(problem, num_labels, tokenizer):
    labels = label_maps([str(i) for i in range(num_labels)])
    model = BiLSTMForSequenceClassification.from_tokenizer(
        tokenizer, embedding_size=4, hidden_size=4, ngrams=[], problem_type=problem, **labels
    ).eval()
    logits = torch.linspace(-2, 3, num_labels)
    model.forward = lambda **_: type("Output", (dict,), {"logits": logits[None]})(logits=logits[None])
    found = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")("서울", top_k=None)
    functions = {"none": lambda x: x, "sigmoid": torch.sigmoid, "softmax": lambda x: x.softmax(-1)}
    scores = functions[activation(model.config)](logits)
    assert [row["score"] for row in found] == pytest.approx(sorted(scores.tolist(), reverse=True))


def test_int8_keeps_the_f1_of_a_model_of_the_package(tmp_path):
    gold = Path(__file__).parents[1] / "models" / "gold.txt"
    folder = tmp_path / "onnx"
    recipe.main(["klue-ner-small", "--int8", "--output_dir", str(folder), "--file", str(gold)])
    sizes = {name: (folder / f"{name}.onnx").stat().st_size for name in ("model", "model_int8")}
    assert sizes["model_int8"] < sizes["model"] / 3.5
    tensors = onnx.load(folder / "model_int8.onnx").graph.initializer
    assert not [t.name for t in tensors if t.data_type == onnx.TensorProto.FLOAT and np.prod(t.dims) > 5000]
    pipe = load_pipeline("klue-ner-small", device="cpu")
    examples = recipe.Examples(pipe.task, pipe.model.label_names(), str(gold))
    scores = [examples.score(each(examples.texts)) for each in (pipe, OnnxPipeline(folder / "model_int8.onnx"))]
    plain, int8 = (float(score.removeprefix("F1 ")) for score in scores)
    assert int8 == pytest.approx(plain, abs=0.01)  # two of 240 entities


# ---------------------------------------------------------------- calls


@pytest.fixture(scope="module")
def folder(tagger, tokenizer, tmp_path_factory) -> Path:
    """The folder of a model with its graph in the folder `onnx`."""
    folder = tmp_path_factory.mktemp("exported")
    tagger.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "tagged.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    recipe.main([str(folder), "--file", str(folder / "tagged.txt")])
    return folder


def test_results_are_those_of_the_pipeline_in_any_number_of_threads_and_batches(folder, texts, monkeypatch):
    texts = with_variants(texts * 40)
    expected = load_pipeline(folder, device="cpu")(texts)
    tagger = load_pipeline(folder, backend="onnx")
    for workers, size in ((1, 128), (3, 7), (2, 1)):
        monkeypatch.setattr(onnx_inference, "usable_cpus", lambda workers=workers: workers)
        assert same_results(tagger(texts, batch_size=size), expected)
    monkeypatch.setattr(onnx_inference, "usable_cpus", None)  # a number of threads is not looked up
    for workers in (0, 1, 2):
        assert same_results(tagger(texts, num_workers=workers), expected)
    monkeypatch.undo()
    assert same_results(list(tagger(iter(texts))), expected)
    assert tagger([]) == []
    assert same_results(tagger(texts[0]), expected[0])


@pytest.mark.parametrize("place", ["", "onnx", "onnx/model.onnx"])
def test_a_graph_is_found_in_each_of_its_places(place, folder, texts):
    tagger = load_pipeline(folder / place, backend="onnx")
    assert same_results(tagger(texts), load_pipeline(folder, device="cpu")(texts))


def test_what_cannot_be_read_is_an_error(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="has no model.onnx: write it with `bilstm-crf export-onnx`"):
        load_pipeline(tmp_path, backend="onnx")
    with pytest.raises(ValueError, match="backend is 'onx': choose one of torch, onnx"):
        load_pipeline(folder, backend="onx")
    with pytest.raises(ValueError, match="text 1: character 2 is .* half of a surrogate pair"):
        load_pipeline(folder, backend="onnx")(["서울", "부산\ud800"])


def test_the_commands_run_a_graph(folder, texts, tmp_path, capsys):
    """With the same marks as PyTorch."""
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    printed, files = [], []
    for backend in ("torch", "onnx"):
        options = ["--backend", backend, "--model"]
        tag.main([*options, str(folder), *texts])
        printed.append(capsys.readouterr().out)
        files.append(tmp_path / f"{backend}.txt")
        options = ["--backend", backend, "--use_cpu", "true", "--model_name_or_path", str(folder)]
        predict.main([*options, "--input_file", str(tmp_path / "texts.txt"), "--output_file", str(files[-1])])
        capsys.readouterr()
    assert printed[0] == printed[1] == files[0].read_text() == files[1].read_text()


def test_the_command_gives_words_the_same_tags_with_a_graph(folder, texts, tmp_path):
    rows = [*(text.split() for text in texts), ["", "김연아", " ", "만나"]]
    source, found = tmp_path / "in.jsonl", []
    source.write_text(
        "\n".join(json.dumps({"tokens": row, "doc_id": i // 3}) for i, row in enumerate(rows)), encoding="utf-8"
    )
    for backend in ("torch", "onnx"):
        options = ["--backend", backend, "--use_cpu", "true", "--model_name_or_path", str(folder)]
        output = str(tmp_path / f"{backend}.jsonl")
        options += ["--return_tags", "true", "--document_context", "1", "--output_file", output]
        predict.main([*options, "--input_file", str(source)])
        lines = Path(output).read_text(encoding="utf-8").splitlines()
        found.append([json.loads(line) for line in lines])
    assert [row["tags"] for row in found[0]] == [row["tags"] for row in found[1]]
    assert [len(row["tags"]) for row in found[1]] == list(map(len, rows))
    assert same_results(*([row["entities"] for row in each] for each in found))


@pytest.mark.parametrize("delimiter", [" ", ""])
def test_words_have_the_entities_and_the_tags_of_the_pipeline(delimiter, folder, texts):
    rows = [
        *(text.split() for text in texts),
        [],
        [""],
        [" ", "\u200b"],
        ["", "김연아", "", "만나", "뉴 욕"],
        ["a" * 5000],
    ]
    options = {"is_split_into_words": True, "delimiter": delimiter, "batch_size": 4}
    pipes = [load_pipeline(folder, **backend) for backend in ({"device": "cpu"}, {"backend": "onnx"})]
    expected, found = ([pipe(rows, **options), pipe(rows, return_tags=True, **options)] for pipe in pipes)
    assert same_results(found[0], expected[0])
    assert found[1] == expected[1]
    assert list(map(len, found[1])) == list(map(len, rows))
    assert len({tag for tags in found[1] for tag in tags}) > 4
    assert list(pipes[1](iter(rows), return_tags=True, **options)) == found[1]
    assert pipes[1](rows[0], return_tags=True, is_split_into_words=True, delimiter=delimiter) == found[1][:1]


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        (["서울"], {"return_tags": True}),
        *((inputs, {"is_split_into_words": True}) for inputs in ("서울", [["서울"], "서울"], [["서울", None]], 3)),
        *((["서울"], {"batch_size": size}) for size in (0, -1, 1.5)),
        *((["서울"], {"num_workers": workers}) for workers in (-1, "two")),
        *((inputs, {}) for inputs in (b"seoul", {"text": "서울"}, {"서울"}, None, 3)),
        *((inputs, {}) for inputs in (["서울", None], [["서울"]], [{"text": "서울"}], [b"seoul"])),
    ],
)
def test_calls_are_refused_as_the_pipeline_does(inputs, options, folder):
    messages = []
    for backend in ({"device": "cpu"}, {"backend": "onnx"}):
        with pytest.raises(ValueError, match=r"set it to|the input is of the type|text \d|for words") as error:
            load_pipeline(folder, **backend)(inputs, **options)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def rename_settings(path: Path) -> None:
    graph = onnx.load(path)
    graph.metadata_props[0].key = "options"
    onnx.save(graph, path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b""),
        rename_settings,
        lambda path: path.with_name("tokenizer.json").write_text("{"),
        lambda path: path.with_name("tokenizer.json").unlink(),
    ],
    ids=["cut off", "empty", "earlier version", "damaged tokenizer", "no tokenizer"],
)
def test_a_damaged_export_is_named(damage, folder, tmp_path):
    copy = shutil.copytree(folder / "onnx", tmp_path / "onnx")
    damage(copy / "model.onnx")
    with pytest.raises(ValueError, match=r"(?s)onnx/model\.onnx, .* cannot be read .*: export the model again"):
        load_pipeline(copy, backend="onnx")


def test_a_graph_runs_on_the_cpu_only(folder):
    assert load_pipeline(folder, backend="onnx", device="cpu")("서울") == load_pipeline(folder, backend="onnx")("서울")
    for options, message in (({"device": "cuda"}, "device is 'cuda'"), ({"revision": "main"}, "revision is 'main'")):
        with pytest.raises(ValueError, match=f"{message}: leave it out"):
            load_pipeline(folder, backend="onnx", **options)


def test_missing_onnxruntime_is_told(folder, monkeypatch):
    monkeypatch.delitem(sys.modules, onnx_inference.__name__)
    monkeypatch.delattr("bilstm_crf_hf.inference.onnx_inference")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(sys, "argv", ["bilstm-crf"])
    with pytest.raises(ImportError, match=r'needs onnxruntime: pip install "bilstm-crf-hf\[onnx\]"'):
        load_pipeline(folder, backend="onnx")
    with pytest.raises(SystemExit, match=r'bilstm-crf tag needs onnxruntime: pip install "bilstm-crf-hf\[onnx\]"'):
        run_command(["tag", "--backend", "onnx", "--model", str(folder), "서울"])


def test_settings_of_predictions_name_the_libraries_that_run_the_graph(folder):
    settings = load_predictor(str(folder), 4, backend="onnx").settings()
    assert settings["onnxruntime"] == onnxruntime.__version__
    assert settings["tokenizers"]
    assert "onnxruntime" not in load_predictor(str(folder), 4).settings()


READ_BOTH = """
import importlib, json, sys
runners = [importlib.import_module(f"{name}.onnx_inference") for name in ("first", "second")]
folders = [runner.__file__.rpartition("/")[0] for runner in runners]
print(json.dumps([runner.OnnxPipeline(folder)(sys.argv[1]) for runner, folder in zip(runners, folders)]))
"""


def test_each_of_two_folders_within_packages_runs_its_own_code(folder, texts, tmp_path):
    for name in ("first", "second"):
        (shutil.copytree(folder / "onnx", tmp_path / name) / "__init__.py").touch()
    with (tmp_path / "second" / "recursions.py").open("a") as file:
        file.write("\n\nof_graph = decode\n\n\ndef decode(*args, **crf):\n")
        file.write("    paths, log_probs = of_graph(*args, **crf)\n    return paths, log_probs - 1\n")
    output, _ = run_without(("torch", "bilstm_crf_hf"), READ_BOTH, tmp_path, texts[0])
    first, second = json.loads(output)
    assert same_results(first, load_pipeline(folder, device="cpu")(texts[0]))
    assert first != second


def test_a_model_whose_inputs_cannot_be_computed_is_not_exported(tokenizer, tmp_path, monkeypatch):
    model = new_reader(tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "kiwipiepy", None)
    with pytest.raises(ImportError, match="morpheme_ids need kiwipiepy: pip install kiwipiepy"):
        recipe.main([str(tmp_path), "--file", "none.txt"])


def test_loggers_warn_as_before_after_an_export(folder, tmp_path, caplog):
    level = logging.getLogger("torch.onnx").level
    options = ["--int8", "--output_dir", str(tmp_path), "--file", str(folder / "tagged.txt")]
    recipe.main([str(folder), *options])
    assert not [record for record in caplog.records if record.name == "root" or record.name.startswith("torch.onnx")]
    assert logging.getLogger("torch.onnx").level == level
    logging.warning("a warning")  # noqa: LOG015
    assert caplog.messages[-1] == "a warning"


@pytest.mark.parametrize("vectors", [False, True])
def test_a_tagger_of_words_is_the_same_in_onnxruntime(tmp_path, vectors):
    """Its paths, emissions and entities, with pretrained vectors and without, alone and in a batch."""
    texts = [
        "Anna Kovacs saw Rome",
        "on 1996-08-22, U.S. McDonald's",
        "a",
        "ROME rome 猫 x1y",
        "서울 Seoul " * 40,
        "",
        " ",
    ]
    tokenizer = build_character_tokenizer([text.replace("猫", "") for text in texts], unit="words")
    torch.manual_seed(0)
    fields = {"num_word_vectors": 4, "word_vector_size": 6} if vectors else {}
    model = BiLSTMCRFForTokenClassification.from_tokenizer(
        tokenizer, unit="words", hidden_size=16, word_buckets=97, **label_maps(LABELS), **fields
    ).eval()
    features = model.bilstm.features
    torch.nn.init.normal_(features.hash_embeddings.weight)
    if vectors:
        hashes = word_hashes(tokenizer, ["rome", "Anna", "Seoul"]).sort().values
        features.set_vectors(hashes, torch.randn(3, 6))
    path = tmp_path / "model.onnx"
    export_onnx(model, path, tokenizer)
    tokenizer.save_pretrained(tmp_path)
    session = onnxruntime.InferenceSession(path)
    for batch in (texts[:5], texts[:1], texts[4:6]):
        assert_same_outputs(model, session, dict(tokenizer(batch, padding=True, return_tensors="pt")))
    ours = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)(texts)
    exported = OnnxPipeline(path)(texts)
    assert sum(map(len, ours)) > 10
    for expected, found in zip(ours, exported, strict=True):
        assert [{**entity, "score": 0} for entity in found] == [{**entity, "score": 0} for entity in expected]
        assert [e["score"] for e in found] == pytest.approx([e["score"] for e in expected], abs=1e-5)
