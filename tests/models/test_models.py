"""The models in the package: how they are named, what their folders hold, and how well they do.

`gold.txt` has 83 sentences in the style of news and reviews, written for these tests and annotated as KLUE-NER is;
`unseen.txt` has 20 in the style of news, chats and reviews. The persons, firms and places in it do not occur in the
training data of KLUE-NER.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clean_process import run_without_package
from conftest import new_tagger
from huggingface_hub import ModelCard
from safetensors import safe_open
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2

import bilstm_crf_hf
from bilstm_crf_hf import load_pipeline
from bilstm_crf_hf.alignment import tags_from_spans
from bilstm_crf_hf.commands import analyze, demo, export_onnx, ner, predict, publish
from bilstm_crf_hf.data.inline_marks import parse_inline
from bilstm_crf_hf.hub.packaging import export_model
from bilstm_crf_hf.hub.published_files import ABSOLUTE_PATH
from bilstm_crf_hf.models import FOLDER, model_names, model_path

LIMITS = {"klue-ner": (12_000_000, 25), "klue-ner-small": (4_000_000, 9), "nsmc-small": (4_000_000, 9)}
"""The largest numbers of parameters, and of megabytes of the weights."""
TAGGERS = ["klue-ner", "klue-ner-small"]
LICENSES = {"klue-ner": "cc-by-sa-4.0", "klue-ner-small": "cc-by-sa-4.0", "nsmc-small": "cc0-1.0"}
SENTENCE = "손흥민은 1992년 7월 8일 춘천에서 태어났다."
REVIEWS = {
    "두 시간이 어떻게 지나갔는지 모를 만큼 즐거웠다.": "긍정",
    "기대하고 봤는데 끝까지 보기가 힘들었어요.": "부정",
    "음악도 연기도 정말 좋아서 또 보고 싶다": "긍정",
    "결말이 뻔하고 대사가 유치하다": "부정",
    "가족과 함께 보면서 많이 웃었습니다 ㅎㅎ": "긍정",
    "돈이 아깝다. 졸려서 혼났네": "부정",
}
MARGIN = 0.04
"""How much less than in the card the F1 on `gold.txt` may be: two standard errors of 240 entities."""


def sentences(name: str) -> list:
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return [parse_inline(line) for line in lines]


def card_score(name: str, metric: str) -> float:
    """Return the score on the last of the splits, that for tests."""
    results = ModelCard.load(FOLDER / name / "README.md").data.eval_results
    *_, score = (result.metric_value for result in results if result.metric_name.startswith(f"{metric} ("))
    return score


@pytest.fixture(scope="module")
def pipelines():
    return {name: load_pipeline(name, device="cpu") for name in LIMITS}


# ---------------------------------------------------------------- names


def test_the_package_has_these_models():
    assert model_names() == sorted(LIMITS)


@pytest.mark.parametrize("name", LIMITS)
def test_a_name_is_that_of_a_folder_in_the_package(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()  # of anything but a model
    folder = Path(model_path(name))
    assert folder.parent == Path(bilstm_crf_hf.__file__).parent / "models"
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["outputs/klue-ner", "owner/klue-ner", "..", "", "klue-ner/", "KLUE-NER"])
def test_any_other_name_stays_as_it_is(name):
    assert model_path(name) == name


def test_a_folder_with_a_model_wins_over_one_in_the_package(tokenizer, tmp_path, monkeypatch, caplog):
    """A warning says so, and the page does not run its code: nobody may have named it."""
    monkeypatch.chdir(tmp_path)
    new_tagger(tokenizer).save_pretrained("klue-ner")
    tokenizer.save_pretrained("klue-ner")
    assert model_path("klue-ner") == "klue-ner"
    assert f"klue-ner is the model in the folder {Path('klue-ner').resolve()}" in caplog.text
    assert load_pipeline("klue-ner", device="cpu").model.config.hidden_size == 24
    for path in Path("klue-ner").glob("*.py"):
        path.write_text("raise SystemExit", encoding="utf-8")
    assert demo.load("token-classification", "klue-ner", None).model.config.hidden_size == 24


def test_the_pipeline_without_a_name_is_that_of_the_tagger():
    tagger = load_pipeline(device="cpu", aggregation_strategy="none")
    assert Path(tagger.model.name_or_path) == FOLDER / "klue-ner"
    assert {"entity", "index"} <= tagger(SENTENCE)[0].keys()  # tokens: the options have arrived


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("name", LIMITS)
def test_sizes_are_within_the_limits(name, pipelines):
    parameters, megabytes = LIMITS[name]
    assert pipelines[name].model.num_parameters() <= parameters
    assert (FOLDER / name / "model.safetensors").stat().st_size <= megabytes * 1e6


@pytest.mark.parametrize("name", LIMITS)
def test_weights_are_stored_in_bfloat16_and_loaded_in_float32(name, pipelines):
    with safe_open(FOLDER / name / "model.safetensors", "pt") as file:
        stored = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118  # no dictionary
    assert {kind for kind in stored if "F" in kind} == {"BF16"}
    assert {weight.dtype for weight in pipelines[name].model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", LIMITS)
def test_a_folder_has_the_files_of_a_model_without_code(name):
    files = {path.name for path in (FOLDER / name).iterdir()}
    needed = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
    assert files == needed | {"all_results.json", "training_run.json"}
    for file in files - {"model.safetensors", "tokenizer.json"}:
        assert not ABSOLUTE_PATH.search((FOLDER / name / file).read_text(encoding="utf-8")), file


@pytest.mark.parametrize("name", LIMITS)
def test_the_licence_is_in_the_card_and_in_the_metadata_of_the_package(name):
    card = ModelCard.load(FOLDER / name / "README.md")
    assert card.data.license == LICENSES[name]
    root = Path(__file__).parents[2]
    metadata = (root / "setup.cfg").read_text(encoding="utf-8")
    expression = re.search(r"^license_expression = (.+)$", metadata, re.MULTILINE)[1].split(" AND ")
    (identifier,) = (part for part in expression if part.lower() == LICENSES[name])
    assert (root / "LICENSES" / f"{identifier}.txt").stat().st_size > 5000


@pytest.mark.parametrize("name", LIMITS)
def test_the_figures_of_the_card_are_those_of_its_run(name):
    results = json.loads((FOLDER / name / "all_results.json").read_text(encoding="utf-8"))
    card = ModelCard.load(FOLDER / name / "README.md")
    assert all(result.metric_value in results.values() for result in card.data.eval_results)
    assert f"{results['parameters']:,} parameters" in card.text


# ---------------------------------------------------------------- exported


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITS)
def test_an_exported_folder_gives_the_same_with_the_stock_pipeline_without_the_package(name, pipelines, tmp_path):
    """With the stock `pipeline`, for the folder of `publish` and for that of `save_pretrained`."""
    pipe = pipelines[name]
    texts = [sentence.text for sentence in sentences("unseen.txt")]
    expected = pipe(texts)
    export_model(name, tmp_path / "exported")
    pipe.save_pretrained(tmp_path / "saved")
    for folder in ("exported", "saved"):
        found = run_without_package(
            f"""
            import json
            from transformers import pipeline
            pipe = pipeline({pipe.task!r}, model={folder!r}, trust_remote_code=True, device="cpu")
            print(json.dumps([str(pipe.model.dtype), pipe({texts!r})]))
            """,
            tmp_path,
        )
        assert found[0] == "torch.float32"
        assert rounded(found[1]) == rounded(expected)


def rounded(value):
    """Return a value of JSON with rounded numbers."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else (
        round(value, 4) if isinstance(value, float) else value
    )  # fmt: skip


@pytest.mark.slow
def test_a_model_of_the_package_is_published_under_a_name_of_ones_own(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bilstm-crf publish"])
    before = {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*")}
    publish.main(["klue-ner-small", "tester/tagger", "--revision", "v3", "--dry_run"])
    printed = capsys.readouterr().out
    assert printed.startswith("tester/tagger (")
    assert "pipeline_bilstm_crf.py" in printed
    assert "nothing was sent" in printed
    assert {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*")} == before


# ---------------------------------------------------------------- quality


@pytest.mark.parametrize("name", TAGGERS)
def test_the_f1_in_the_card_holds_on_other_sentences(name, pipelines):
    """By seqeval's strict F1 on the characters of `gold.txt`, which are easier than KLUE-NER."""
    gold = sentences("gold.txt")
    found = pipelines[name]([sentence.text for sentence in gold])
    spans = [[(e["start"], e["end"], e["entity_group"]) for e in entities] for entities in found]
    tags = [
        [tags_from_spans(each, len(sentence.text)) for sentence, each in zip(gold, column, strict=True)]
        for column in ([sentence.spans for sentence in gold], spans)
    ]
    assert f1_score(*tags, mode="strict", scheme=IOB2) >= card_score(name, "F1") - MARGIN


@pytest.mark.parametrize("name", TAGGERS)
def test_at_most_one_entity_in_ten_is_wrong_and_one_in_five_missed_where_names_are_unseen(name, pipelines):
    gold = sentences("unseen.txt")
    found = pipelines[name]([sentence.text for sentence in gold])
    pairs = [
        (set(sentence.spans), {(e["start"], e["end"], e["entity_group"]) for e in entities})
        for sentence, entities in zip(gold, found, strict=True)
    ]
    wrong = sum(len(ours - theirs) for theirs, ours in pairs)
    missed = sum(len(theirs - ours) for theirs, ours in pairs)
    assert wrong <= sum(len(ours) for _, ours in pairs) / 10
    assert missed <= sum(len(theirs) for theirs, _ in pairs) / 5


def test_reviews_get_their_label(pipelines):
    labels = [answer["label"] for answer in pipelines["nsmc-small"](list(REVIEWS))]
    assert labels == list(REVIEWS.values())


# ---------------------------------------------------------------- commands


def test_predict_tags_with_the_model_of_the_package(pipelines, tmp_path, monkeypatch):
    """`predict` without a model, on a file of texts."""
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text(SENTENCE, encoding="utf-8")
    predict.main(["--input_file", "texts.txt", "--output_file", "tagged.jsonl", "--use_cpu", "true"])
    row = json.loads(Path("tagged.jsonl").read_text(encoding="utf-8"))
    assert rounded(row["entities"]) == rounded(pipelines["klue-ner"](SENTENCE))


def test_the_spacy_component_tags_with_the_model_of_the_package(pipelines):
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("xx")
    nlp.add_pipe("bilstm_crf")
    found = [(entity["text"], entity["label"]) for entity in nlp(SENTENCE)._.entities]
    assert found == [(entity["word"], entity["entity_group"]) for entity in pipelines["klue-ner"](SENTENCE)]


def test_the_page_shows_the_models_of_the_package(monkeypatch):
    app = pytest.importorskip("bilstm_crf_hf.inference.space.app")
    for variable in ("MODEL_ID", "CLASSIFIER_ID"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    shown = []
    monkeypatch.setattr(app, "build", lambda *pipes: shown.append(pipes) or sys.exit())
    for argv in ([], ["klue-ner-small", "--classifier", "nsmc-small"]):
        with pytest.raises(SystemExit):
            demo.main(argv)
    names = [tuple(Path(pipe.model.name_or_path).name for pipe in pipes) for pipes in shown]
    assert names == [("klue-ner", "nsmc-small"), ("klue-ner-small", "nsmc-small")]
    with pytest.raises(SystemExit, match="nsmc-small is for text-classification"):
        demo.main(["nsmc-small"])


@pytest.mark.slow
def test_a_model_of_the_package_is_exported_to_onnx_outside_of_the_package(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    before = sorted(FOLDER.rglob("*"))
    export_onnx.main(["klue-ner-small", "--file", str(Path(__file__).with_name("gold.txt"))])
    assert Path("outputs/onnx/model.onnx").is_file()
    assert sorted(FOLDER.rglob("*")) == before


@pytest.mark.slow
def test_analyze_reports_on_a_model_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gold = str(Path(__file__).with_name("gold.txt"))
    analyze.main(["--model_name_or_path", "klue-ner-small", "--validation_file", gold, "--output_dir", "report"])
    numbers = json.loads(Path("report/analysis.json").read_text(encoding="utf-8"))
    assert numbers["scores"]["F1"] > 0.7


@pytest.mark.slow
def test_a_training_with_other_labels_starts_from_a_model_of_the_package(tmp_path, monkeypatch):
    """The body stays as it is without a step of training; so do the model in the package and its name in the record.

    Without a new head, the types are added to those of the model, which finds the same entities as before.
    """
    monkeypatch.chdir(tmp_path)
    Path("train.txt").write_text("<손흥민:선수>은 <춘천:고향>에서 태어났다.\n" * 4, encoding="utf-8")
    options = ["--train_file", "train.txt", "--validation_file", "train.txt", "--entity_types", "선수", "고향"]
    options += ["--model_name_or_path", "klue-ner-small", "--output_dir", "mine", "--use_cpu", "true"]
    options += ["--learning_rate", "0", "--embedding_learning_rate", "0", "--max_steps", "1"]
    ner.main([*options, "--output_dir", "more"])
    ner.main([*options, "--head", "new"])
    more, mine, tagger = (load_pipeline(name, device="cpu") for name in ("more", "mine", "klue-ner-small"))
    text = "손흥민은 1992년 춘천에서 태어났다."
    after, before = ([(each["entity_group"], each["word"]) for each in tag(text)] for tag in (more, tagger))
    assert after == before
    assert set(more.model.config.label2id) == {*tagger.model.config.label2id, "B-선수", "I-선수", "B-고향", "I-고향"}
    trained, original = mine.model, tagger.model
    assert set(trained.config.label2id) == {"B-선수", "I-선수", "B-고향", "I-고향", "O"}
    ours, theirs = trained.bilstm.state_dict(), original.bilstm.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    arguments = json.loads(Path("mine/training_run.json").read_text(encoding="utf-8"))["arguments"]
    assert arguments["model_name_or_path"] == "klue-ner-small"


# ---------------------------------------------------------------- first command

WITHOUT_NETWORK = """
import socket, sys
def refuse(*arguments, **options):
    raise OSError("a connection was tried")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from bilstm_crf_hf.commands.__main__ import main
main(sys.argv[1:])
heavy = {"datasets", "sklearn", "evaluate", "pandas", "matplotlib", "transformers.trainer"} & sys.modules.keys()
assert not heavy or sys.argv[1] != "tag", heavy
"""


def run(*arguments: str, lines: str | None = None) -> str:
    """Run `bilstm-crf` in a process that cannot connect to anything, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(Path(bilstm_crf_hf.__file__).parents[1])}
    environment.pop("HF_HUB_OFFLINE", None)  # which no user has set
    command = [sys.executable, "-c", WITHOUT_NETWORK, *arguments]
    done = subprocess.run(
        command, input=lines, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_first_command_of_readme_prints_what_stands_there():
    arguments, printed = re.search(
        r"```bash\npip install -e \. && bilstm-crf (.+)\n```\n```\n(.+\n)```", README
    ).groups()
    assert run(*shlex.split(arguments)) == printed


def test_the_line_of_python_in_readme_returns_what_stands_there(pipelines):
    text, shown = re.search(r'^load_pipeline\(\)\("(.+)"\)  # (.+)$', README, re.MULTILINE).groups()
    (expected,), (found,) = ast.literal_eval(shown), pipelines["klue-ner"](text)
    assert found == expected | {"score": pytest.approx(expected["score"], abs=1e-4)}


@pytest.mark.slow
def test_tag_prints_marked_texts_and_json(tmp_path):
    marked = "<손흥민:PS>은 <1992년 7월 8일:DT> <춘천:LC>에서 태어났다."
    assert run("tag", SENTENCE, "") == f"{marked}\n\n"
    (tmp_path / "texts.txt").write_bytes(f"\ufeff{SENTENCE}\r\n\r\n나는 학교에 갔다가 집에 왔다.".encode())
    assert run("tag", "--file", str(tmp_path / "texts.txt")) == f"{marked}\n\n나는 학교에 갔다가 집에 왔다.\n"
    assert run("tag", "--model", "klue-ner-small", lines=f"{SENTENCE}\n") == f"{marked}\n"
    row = json.loads(run("tag", "--format", "json", SENTENCE))
    assert row["text"] == SENTENCE
    assert [SENTENCE[entity["start"] : entity["end"]] for entity in row["entities"]] == [
        "손흥민", "1992년 7월 8일", "춘천",
    ]  # fmt: skip
    assert all(0.5 < entity["score"] <= 1 for entity in row["entities"])


@pytest.mark.slow
def test_classify_prints_label_probability_and_text():
    label, score, text = run("classify", "--text", "정말 재미있는 영화였다").rstrip("\n").split("\t")
    assert (label, text) == ("긍정", "정말 재미있는 영화였다")
    assert 0.5 < float(score) <= 1
    row = json.loads(run("classify", "--file", "-", "--format", "json", lines="돈이 아깝다. 졸려서 혼났네\n"))
    assert row["label"] == "부정"
