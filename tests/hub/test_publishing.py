"""What is sent to the Hub, and what is refused; test_hub.py is about sending it."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import finish_run
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from bilstm_crf_hf import __version__
from bilstm_crf_hf.commands import publish
from bilstm_crf_hf.hub import publishing
from bilstm_crf_hf.hub.model_card import TrainedModel, render_card
from bilstm_crf_hf.hub.published_files import (
    ABSOLUTE_PATH,
    BINARY,
    EVAL_RESULTS,
    PUBLISHED,
    SECRETS,
    check_files,
    secret_variables,
)
from bilstm_crf_hf.hub.publishing import check_export, describe, prepare
from bilstm_crf_hf.training.arguments import TaggerTrainingArguments

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2] / "bilstm_crf_hf"
REPO_ID = "tester/ner"
SECRET = "hf_" + "aB3" * 12
PIECES = ("tokenizer.json", "tokenizer_config.json")
JUNK = {
    **dict.fromkeys(("id_rsa", "credentials", ".env", ".hidden", "LICENSE.key", "helper.py"), SECRET.encode()),
    **dict.fromkeys(
        ("training_args.bin", "optimizer.pt", "pytorch_model.bin", "weights", "vectors.npy"), b"\x80\x04N."
    ),
    **dict.fromkeys(("train.csv", "soft_labels.parquet", "analysis.json", "config.json.bak", "Config.json"), b"text"),
    **dict.fromkeys(("notes.md", "model.onnx", "pieces/notes.txt", "onnx/graph.pkl", "onnx/model_other.onnx"), b""),
    **dict.fromkeys((".eval_results/other.yaml", "model-0\n-of-1.safetensors", "model-a-of-b.safetensors"), b""),
    **dict.fromkeys(("onnx/sub/model.onnx", "checkpoint-1/model.safetensors", "bell\x1b[31m.txt"), b""),
}
"""What a run folder may have beside the files of a model."""


@pytest.fixture(scope="module")
def finished(tagger, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    return finish_run(tagger, tokenizer, folder, dataset_name="klue", dataset_config_name="ner")


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def card(run) -> Path:
    path = run / "README.md"
    path.write_text(str(render_card(run, REPO_ID, "v1")), encoding="utf-8")
    return path


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def refusal(run: Path, repo_id: str = REPO_ID, **options: str) -> str:
    """What `prepare` says of what it refuses."""
    with pytest.raises(ValueError, match=".") as error, prepare(run, repo_id, **options):
        pass
    return str(error.value)


# ---------------------------------------------------------------- what is sent


@pytest.fixture(scope="module")
def prepared(finished, tmp_path_factory):
    """A run's folder with other files in it, and its publication."""
    run = shutil.copytree(finished, tmp_path_factory.mktemp("prepared") / "run")
    for name, content in JUNK.items():
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(content)
    for name in PIECES:
        shutil.copy(run / name, run / "pieces" / name)
    (run / "onnx" / "model.onnx").write_bytes(b"\x08\x07graph")
    for name in ("morphemes.py", "inference/onnx_inference.py"):
        shutil.copy(ROOT / name, run / "onnx")
    (run / "LICENSE").write_text("Apache License")
    (run / "latest").symlink_to("checkpoint-1")
    with prepare(run, REPO_ID) as publication:
        yield run, publication


def sent_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_sent_is_the_model_its_code_and_card_and_nothing_else(prepared):
    run, publication = prepared
    sent = sent_files(publication.folder)
    assert set(sent) == {
        *("README.md", "LICENSE", "all_results.json", "config.json", "model.safetensors", "training.png"),
        *("tokenizer.json", "tokenizer_config.json", "pieces/tokenizer.json", "pieces/tokenizer_config.json"),
        *("onnx/model.onnx", "onnx/morphemes.py", "onnx/onnx_inference.py", EVAL_RESULTS),
        *("alignment.py", "configuration_bilstm_crf.py", "crf.py", "input_features.py", "lattice.py", "morphemes.py"),
        *("modeling_bilstm_crf.py", "pipeline_bilstm_crf.py", "processing_bilstm_crf.py", "forward_arguments.py"),
        *(
            "batching.py",
            "entities.py",
            "loops.py",
            "losses.py",
            "recursions.py",
            "saving.py",
            "sequences.py",
            "sizes.py",
            "threads.py",
            "token_table.py",
            "words.py",
        ),
    }
    assert all(content == (run / name).read_bytes() for name, content in sent.items() if name != EVAL_RESULTS)


def test_what_is_left_out_is_said_by_name(prepared):
    run, publication = prepared
    records = {"training_run.json", "validation_predictions.jsonl", "trainer_state.json"}
    files = {name for name in JUNK if not name.startswith(("bell", "checkpoint", "onnx/sub", "model-0", ".eval"))}
    assert set(publication.left_out) == files | records | {
        "checkpoint-1/",
        "onnx/sub/",
        "latest/",
        ".eval_results/",
        r"'bell\x1b[31m.txt'",
        r"'model-0\n-of-1.safetensors'",
    }
    assert {f"left out  {name}" in describe(publication) for name in publication.left_out} == {True}
    assert "\x1b" not in describe(publication)


def test_nothing_that_changes_afterwards_is_sent(run, monkeypatch):
    """All checks look at the copies that are sent."""
    monkeypatch.setattr(publishing, "check_export", lambda *_: None)
    with prepare(run, REPO_ID) as publication:
        before = sent_files(publication.folder)
        append(run / "README.md", SECRET)
        (run / "crf.py").unlink()
        assert sent_files(publication.folder) == before


@pytest.mark.parametrize("name", ["README.md", "model.safetensors", "LICENSE", "onnx/model.onnx", "pieces", "onnx"])
@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_links_and_what_is_no_file_are_not_followed(run, card, tmp_path, name, kind):
    target = tmp_path / "target"
    if kind == "folder":
        target.mkdir()
        (target / "tokenizer.json").write_text(SECRET)
    else:
        target.write_text(SECRET)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name) if kind == "pipe" else (run / name).symlink_to(target)
    expected = "folder: put the folder" if name in PUBLISHED else "regular file: put the file"
    assert refusal(run) == f"nothing was sent:\n  {name}: is a link or no {expected} itself here"


def test_a_run_folder_may_be_named_by_a_link(run, monkeypatch):
    monkeypatch.setattr(publishing, "check_export", lambda *_: None)
    (run.parent / "best").symlink_to(run)
    with prepare(run.parent / "best", REPO_ID) as publication:
        assert (publication.folder / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_what_will_be_sent_is_said_file_by_file(prepared):
    _, publication = prepared
    first, *lines = (line for line in describe(publication).splitlines() if "left out" not in line)
    sizes = {name: int(size.replace(",", "")) for size, name in map(str.split, lines)}
    assert sizes == {name: len(content) for name, content in sent_files(publication.folder).items()}
    assert first.startswith(f"{REPO_ID} (default visibility, if it is new), tag v1: {len(sizes)} files, ")
    assert f"{sum(sizes.values()):,} bytes" in first


def test_scores_of_a_data_set_on_the_hub_are_sent_in_both_of_its_forms(prepared):
    run, publication = prepared
    results = json.loads((run / "all_results.json").read_text(encoding="utf-8"))
    entries = yaml.safe_load((publication.folder / EVAL_RESULTS).read_text(encoding="utf-8"))
    index = ModelCard.load(publication.folder / "README.md").data.eval_results
    keys = ("f1", "precision", "recall", "klue_entity_macro_f1", "klue_char_macro_f1", "token_f1")
    expected = [results[f"eval_{key}"] for key in keys]
    assert [entry["value"] for entry in entries] == [result.metric_value for result in index] == expected
    assert {tuple(entry["dataset"].values()) for entry in entries} == {("klue", "ner")}


def test_dry_run_checks_all_and_sends_nothing(run, capsys, monkeypatch):
    """Nothing could be sent: there is no client. test_hub.py publishes by the recipe."""
    checked = []
    monkeypatch.setattr(publishing, "HfApi", None)
    monkeypatch.setattr(publishing, "check_export", lambda folder, *_: checked.append(folder))
    publish.main([str(run), REPO_ID, "--revision", "v7", "--private", "--dry_run"])
    first, *lines, last = capsys.readouterr().out.splitlines()
    files = [line for line in lines if "left out" not in line]
    assert [line.split()[-1] for line in lines[len(files) :]] == [
        *("checkpoint-1/", "trainer_state.json", "training_run.json", "validation_predictions.jsonl")
    ]
    assert first.startswith(f"{REPO_ID} (private, if it is new), tag v7: {len(files)} files, ")
    assert {"README.md", "model.safetensors"} < {line.split()[1] for line in files}
    assert last == "nothing was sent"
    assert checked == [run]


def test_a_card_is_written_once_and_then_the_authors(run, monkeypatch):
    monkeypatch.setattr(publishing, "check_export", lambda *_: None)
    with prepare(run, REPO_ID, "v7"):
        card = run / "README.md"
        assert f'model="{REPO_ID}", revision="v7", trust_remote_code=True)' in card.read_text(encoding="utf-8")
    edit(card, "## Limitations", "Names of people were made up.\n\n## Limitations")
    expected = card.read_bytes()
    with prepare(run, REPO_ID, "v7") as publication:
        assert (publication.folder / "README.md").read_bytes() == card.read_bytes() == expected


# ---------------------------------------------------------------- files that are refused


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("README.md", "\ntoken={}\n"),
        ("LICENSE", "\n{}"),
        ("modeling_bilstm_crf.py", "\n# token={}\n"),
        ("tokenizer_config.json", '"token": "{}",\n'),
        ("tokenizer.json", '"token": "{}",\n'),
        ("model.safetensors", ""),
    ],
)
def test_a_token_in_any_file_is_refused_and_not_repeated(run, card, name, line):
    place = 1
    if name == "model.safetensors":
        save_file(load_file(run / name), run / name, metadata={"format": "pt", "by": SECRET})
    elif name.endswith(".json"):
        edit(run / name, "{\n", "{\n" + line.format(SECRET))
        place = 2
    else:
        append(run / name, line.format(SECRET))
        place = next(i for i, text in enumerate((run / name).read_text("utf-8").split("\n"), 1) if SECRET in text)
    message = refusal(run)
    assert f"\n  {name}:{place}: an access token: remove it, and revoke it" in message
    assert SECRET[:8] not in message


def test_the_users_own_token_is_known_whatever_it_looks_like(run, card, monkeypatch):
    append(run / "README.md", "\npassword: correct-horse\n")
    monkeypatch.setenv("HF_TOKEN", "correct-horse")
    message = refusal(run)
    assert re.search(r"README.md:\d+: your access token", message)
    assert "correct-horse" not in message


@pytest.mark.parametrize("name", ["README.md", "config.json", "all_results.json"])
def test_a_path_of_this_machine_in_any_file_is_refused(run, card, name):
    if name.endswith(".json"):
        edit(run / name, "{", '{"_name_or_path": "/home/someone/runs/3",')
    else:
        append(run / name, "\n# made in /home/someone/runs/3\n")
    assert re.search(
        rf"nothing was sent:\n  {name}:\d+: a path of this machine, /home/someone/runs/3: remove", refusal(run)
    )


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("tokenizer.json", b"\x80\x04\x95\x05", "may contain pickled code"),
        ("LICENSE", b"PK\x03\x04\x00data.pkl", "may contain pickled code"),
        ("spiece.model", b"\x80\x02}q", "may contain pickled code"),
        ("training.png", b"\x93NUMPY", "may contain pickled code"),
        ("training.png", b"<svg onload=alert(1)>", "is no .png file"),
        ("spm.model", b"cos\nsystem\n(S'id'\ntR.", "is no .model file"),
        ("onnx/model.onnx", b"\x1f\x8b\x08", "is no .onnx file"),
        ("training.png", b"\x89PNG\r\n\x1a\n....zTXtkey", "has compressed text"),
        ("training.png", b"\x89PNG\r\n\x1a\n....IEND\xaeB`\x82PK", "has compressed text or an appendix"),
        ("model.safetensors", b"\x80\x04\x95\x05", "is no safetensors file"),
        ("model.safetensors", b"PK\x03\x04\x00data.pkl", "is no safetensors file"),
        ("model.safetensors", b"", "is no safetensors file"),
        ("LICENSE", "손흥민".encode("cp949"), "is not text in UTF-8"),
        ("all_results.json", b'{"eval_f1": NaN}', "is not JSON \\(it holds NaN"),
        ("added_tokens.json", b'{"a": 1', "is not JSON"),
        ("crf.py", b"import os\n", "is not that of bilstm_crf_hf"),
    ],
)
def test_contents_that_do_not_fit_their_names_are_refused(prepared, tmp_path, name, content, fault):
    folder = shutil.copytree(prepared[1].folder, tmp_path / "model")
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"nothing was sent:\n  {name}: {fault}"):
        check_files(folder)


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "somebody/else--crf.C"}}, "somebody/else--crf.C"),
        ("config.json", {"auto_map": ["evil.C"]}, "evil.C"),
        ("config.json", {"custom_pipelines": {"x": {"impl": "evil.P", "pt": ["AutoModel"]}}}, "evil.P"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "evil.T"),
    ],
)
def test_a_configuration_that_loads_other_code_is_refused(prepared, tmp_path, name, fields, code):
    folder = shutil.copytree(prepared[1].folder, tmp_path / "model")
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps(content | fields), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name}: loads {code}, which is not sent"):
        check_files(folder)


def test_a_file_that_is_too_large_to_be_checked_is_refused_before_it_is_copied(run, card):
    with card.open("r+b") as file:
        file.truncate(2**28 + 1)
    assert "README.md: has 268,435,457 bytes" in refusal(run)


@pytest.mark.parametrize("revision", ["", "v 1", "a..b", "-x", "v1\n", "refs/heads/x", "x.lock", "x.", "a~1", "v{{1}}"])
def test_a_revision_that_cannot_be_a_tag_is_refused_before_an_upload(run, revision):
    assert f"{revision!r} is not the name of a tag" in refusal(run, revision=revision)


def test_values_of_secret_variables_are_found_and_hidden_from_code_that_is_loaded(run, card, monkeypatch):
    value = "0123456789abcdef" * 2
    monkeypatch.setenv("WANDB_API_KEY", value)
    append(card, f"\nrun {value}\n")
    assert re.search(r"README.md:\d+: the value of WANDB_API_KEY", message := refusal(run))
    assert value not in message
    assert "WANDB_API_KEY" in secret_variables()


def test_a_folder_without_weights_is_refused_and_all_faults_are_listed(run):
    (run / "model.safetensors").rename(run / "model.bin")
    append(run / "crf.py", f"# {SECRET}\n# /home/someone/runs/3\n")
    assert [re.sub(r":\d+", "", line).strip() for line in refusal(run).splitlines()] == [
        "nothing was sent:",
        "there are no weights (model.safetensors)",
        f"crf.py: is not that of bilstm_crf_hf {__version__}: load the model with this version and save it again",
        "crf.py: an access token: remove it, and revoke it",
        "crf.py: a path of this machine, /home/someone/runs/3: remove it",
    ]


TOKENS = [
    SECRET,
    f"토큰은{SECRET}입니다",
    f'"token": "{SECRET}",',
    f"https://user:{SECRET}@huggingface.co/tester/ner",
    f"hf_oauth_{'eyJhbGciOiJF' * 3}.x.y",
    f"api_org_{'aBcD' * 8}",
    f"ghp_{'a1B2' * 9}",
    f"github_pat_11{'A0b' * 9}_{'c9D' * 9}",
    f"sk-proj-{'aB-_9' * 9}",
    f"AKIA{'Z9' * 8}",
    f"key=ASIA{'Z9' * 8}",
    f"aws_secret_access_key = {'aB3/' * 10}",
    f"AIza{'aB3-x' * 7}",
    f"xoxb-{'1234567890-' * 3}abc",
    "https://hooks.slack.com/services/T000/B000/XXXX",
    f"glpat-{'aB3_x' * 4}",
    f"npm_{'aB3x' * 9}",
    f"pypi-AgEIcHlwaS5vcmc{'aB3x' * 12}",
    f"sk_live_{'aB3x' * 6}",
    f"sk-ant-api03-{'aB-_9' * 9}",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    f"sk-{'aB3x' * 12}",
    f"hvs.{'aB3x' * 9}",
    f"dckr_pat_{'aB3-x' * 5}",
    f"secret_{'aB3x' * 11}",
    f"shpat_{'0a' * 16}",
    f"123456789:AA{'aB3' * 11}",
    f"https://discord.com/api/webhooks/123456789012345678/{'aB3-' * 16}",
    f"https://x.blob.core.windows.net/c?sv=2022-11-02&sig={'aB3x' * 9}%3D",
    f"WANDB_API_KEY={'0123456789abcdef0123' * 2}",
    f'"wandb_api_key": "{"0123456789abcdef0123" * 2}"',
    f'{{"username":"me","key":"{"0123456789abcdef" * 2}"}}',
    f"machine api.wandb.ai login user password {'0123456789abcdef0123' * 2}",
    f"Authorization: Bearer {'aB3x' * 9}",
    "DB_PASSWORD=hunter2hunter2",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----",
    "https://someone:correct-horse@example.org/ner.git",
    "postgres://u:p4ssw0rd@localhost:5432",
    "redis://:p4ssw0rd@[::1]:6379",
]
NO_TOKENS = [
    "hf_hub_download, hf_raise_for_status, hf_transfer",
    "HF_TOKEN=hf_...",
    "sk-learn-model-comparison-2024-results",
    "secret-santa-party-2024, secret agents2024-and-others",
    "export OPENAI_API_KEY=$OPENAI_API_KEY, password: see the manual, Authorization: Bearer <token>",
    '"pad_token": "[PAD]", token="your-access-token-goes-here"',
    "sk-learn-style-estimators-of-any-kind",
    "task-specific-learning-rates-for-everything",
    "62a4d28ab4bd07c6ff4a3d0d1ac0fc0a0c8e9a11",
    "SHF_AAAAAAAAAAAAAAAAAAAAAAAAA",
    f"{'Zx/9' * 40}AKIA{'Z9' * 8}/{'Zx9+' * 40}AIza{'aB3x9' * 7}Zx9=",  # the table of a SentencePiece tokenizer
    "global-average-pooling-of-all-tokens-is-used",
    "https://user:${PASSWORD}@host, https://<user>:<password>@host, ssh://git@github.com:22/a",
    "docker://image:latest@sha256:0123",
    "http://localhost:8000/@me https://example.org:8080",
    "-----BEGIN CERTIFICATE----- ssh-rsa AAAAB3NzaC1yc2E",
    '{"access_token": 3, "password": 17, "secret": 9, "##_key": 5, "://": 7, ":a@": 8}',
    "aws_access_key_id = ...; aws_secret_access_key = ...",
]
PATHS = [
    "/home/someone/runs/3",
    '"tokenizer":"/mnt/data/bert",',
    "cache:/home/someone",
    "file:///home/someone/x",
    "(/Users/someone/내 문서/run)",
    "C:\\Users\\someone",
    "C:\\Program Files\\run",
    '"C:\\\\Users\\\\someone"',
    "C:/Users/someone",
    "--output_dir=/content/drive/run",
    "경로: /홈/사용자",
]
NO_PATHS = [
    "https://huggingface.co/datasets/klue/klue/tree/main",
    "[KLUE](https://github.com/KLUE-benchmark/KLUE) <https://a.example/b/c/d>",
    "서울/경기/인천, a/b, km/h, and/or/not",
    "./outputs/run/model ../data/ner/train.txt ~/runs/3/model",
    'f"{folder}/run/model" ${HOME}/run/model "recipes/**/ner/*.yaml" %s/a/b',
    "[card](model_cards/ner/README.md) (docs/use/card.md)",
    "CC BY-SA 4.0 / Apache 2.0; a // b; / 2",
    "</s> /s </code></a>",
    'print("Q:\\nA:\\n")',
    r"re.compile(r'(\w+)/(\w+)/d')",
    "s3://bucket/a/b gs://bucket/a/b",
]


@pytest.mark.parametrize("line", TOKENS)
def test_tokens_are_seen(line):
    assert any(pattern.search(line) for pattern in SECRETS.values())


@pytest.mark.parametrize("line", NO_TOKENS)
def test_what_is_no_token_is_not_taken_for_one(line):
    assert not any(pattern.search(line) for pattern in SECRETS.values())


@pytest.mark.parametrize("path", ["/home/홍길동/bert", "C:\\Users\\홍길동\\bert", "/data/모델/ner"])
def test_paths_are_seen_as_json_writes_them(prepared, tmp_path, path):
    folder = shutil.copytree(prepared[1].folder, tmp_path / "model")
    (folder / "added_tokens.json").write_text(json.dumps({"_name_or_path": path}), encoding="utf-8")
    with pytest.raises(ValueError, match="added_tokens.json:1: a path of this machine"):
        check_files(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x0a\x17/home/someone/corpus.txt\x12\x00", "a path of this machine"),
        (f"\0{SECRET}\0".encode(), "an access token"),
    ],
)
@pytest.mark.parametrize("name", ["spm.model", "training.png", "onnx/model.onnx"])
def test_binary_files_are_searched_too(prepared, tmp_path, name, content, message):
    folder = shutil.copytree(prepared[1].folder, tmp_path / "model")
    (folder / name).write_bytes(BINARY[Path(name).suffix] + b"\xff\xfe" + content)
    with pytest.raises(ValueError, match=rf"{name}:\d: {message}"):
        check_files(folder)


def test_weights_that_look_like_a_path_by_chance_are_none(prepared, tmp_path):
    folder = shutil.copytree(prepared[1].folder, tmp_path / "model")
    weights = b"\xff\x8a/A/@B4;k\xfe\x03/6+/VKjI\x81"  # of a trained graph
    (folder / "onnx" / "model_int8.onnx").write_bytes(b"\x08" + weights)
    check_files(folder)


@pytest.mark.parametrize("line", PATHS)
def test_absolute_paths_are_seen(line):
    assert ABSOLUTE_PATH.search(line)


@pytest.mark.parametrize("line", NO_PATHS)
def test_what_is_no_absolute_path_is_not_taken_for_one(line):
    assert not ABSOLUTE_PATH.search(line)


def test_pieces_of_texts_in_a_vocabulary_are_no_paths(prepared, tmp_path):
    folder = shutil.copytree(prepared[1].folder, tmp_path / "model")
    (folder / "vocab.txt").write_text("[PAD]\n/usr/bin\n", encoding="utf-8")
    check_files(folder)
    (folder / "vocab.txt").rename(folder / "words.txt")
    with pytest.raises(ValueError, match="words.txt:2: a path of this machine, /usr/bin"):
        check_files(folder)


# ---------------------------------------------------------------- cards, names and folders that are refused


def test_a_card_whose_figures_are_of_another_run_is_refused(run, card):
    results = json.loads((run / "all_results.json").read_text(encoding="utf-8"))
    edit(card, f"value: {results['eval_f1']}", "value: 0.9321")
    message = refusal(run)
    assert "README.md: F1 (entities on characters" in message
    assert "is 0.9321, which is not in all_results.json" in message


@pytest.mark.parametrize(("repo_id", "revision"), [("tester/other", "v1"), (REPO_ID, "v2")])
def test_a_card_whose_snippet_loads_something_else_is_refused(run, card, repo_id, revision):
    message = refusal(run, repo_id, revision=revision)
    assert f"README.md: the snippet loads {REPO_ID} at v1, not {repo_id} at {revision}" in message


@pytest.mark.parametrize("repo_id", ["ner", "a/b/c", "tester/", "/ner", "tester/n er", "tester/개체명", "tester/a--b"])
def test_names_that_the_hub_does_not_take_are_refused_before_anything_is_written(run, repo_id):
    assert repo_id in refusal(run, repo_id)
    assert not (run / "README.md").exists()


@pytest.mark.parametrize("name", ["all_results.json", "training_run.json", "config.json"])
def test_a_folder_that_is_not_of_a_finished_run_is_refused(run, card, name):
    (run / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}: .*Name the folder of a finished run"), prepare(run, REPO_ID):
        pass


def test_the_recipe_says_what_is_wrong_in_a_line(run, capsys):
    (run / "all_results.json").unlink()
    with pytest.raises(SystemExit):
        publish.main([str(run), REPO_ID])
    assert capsys.readouterr().err.splitlines()[-1].endswith("Name the folder of a finished run, or train again")


# ---------------------------------------------------------------- models that are refused


def test_code_that_says_something_else_than_the_package_is_refused(run, monkeypatch):
    edit(
        run / "modeling_bilstm_crf.py",
        "return self.classifier(hidden), sequences",
        "return -self.classifier(hidden), sequences",
    )
    assert "modeling_bilstm_crf.py: is not that of bilstm_crf_hf" in refusal(run)
    monkeypatch.setattr(publishing, "check_files", lambda _: None)
    message = refusal(run)
    assert message.startswith("nothing was sent: without bilstm_crf_hf the output for '손흥민은 1992년")
    assert "Save the model again with the code of this version" in message


def test_code_runs_without_the_package_and_without_the_users_token(run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    (run.parent / "token").write_text(SECRET)
    monkeypatch.setenv("HF_TOKEN_PATH", str(run.parent / "token"))
    code = "\nfrom huggingface_hub import get_token\nassert get_token() is None\nimport bilstm_crf_hf\n"
    append(run / "crf.py", code)
    monkeypatch.setattr(publishing, "check_files", lambda _: None)
    message = refusal(run)
    assert message.startswith("nothing was sent: the files do not load without bilstm_crf_hf:\n")
    assert message.splitlines()[-1].startswith("ModuleNotFoundError: import of bilstm_crf_hf halted")


def test_weights_that_differ_from_the_runs_are_refused(run, tmp_path):
    staged = shutil.copytree(run, tmp_path / "staged")
    weights = load_file(run / "model.safetensors")
    weights["classifier.weight"] *= -1
    save_file(weights, staged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="the output for"):
        check_export(run, staged, TrainedModel(run), tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(run, value):
    weights = load_file(run / "model.safetensors")
    weights["crf.transitions"][0, 0] = value
    save_file(weights, run / "model.safetensors", metadata={"format": "pt"})
    assert "the weight crf.transitions holds NaN or infinity" in refusal(run)


# ---------------------------------------------------------------- training that publishes


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hub_token": SECRET}, "use `hf auth login`"), ({"hub_strategy": "every_save"}, "only `end` is possible")],
)
def test_training_refuses_what_would_leak_or_go_unchecked(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        TaggerTrainingArguments(str(tmp_path), push_to_hub=True, **options)
    assert SECRET not in str(error.value)
