"""Publishing to a Hub and loading from it, by huggingface_hub's own client; test_publishing.py has what is refused."""

import json
import os
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import finish_run, new_tagger
from hub_server import READ_TOKEN, TOKEN, USER, HubServer, LFSBlob
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

import bilstm_crf_hf
from bilstm_crf_hf import BiLSTMCRFTokenClassificationPipeline
from bilstm_crf_hf.commands import publish
from bilstm_crf_hf.hub.publishing import Publication, prepare, send

httpx = import_module("httpx2" if find_spec("httpx2") else "httpx")  # the client of huggingface_hub 2, or 1
TRANSPORT_ERROR = httpx.TransportError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning:httpx2"),  # the client's, with LFS
    pytest.mark.slow,
]
RECIPES = Path(__file__).parents[2] / "recipes"
REPO_ID, SMALL_ID = f"{USER}/ner", f"{USER}/small"

REQUIREMENTS = """
import re, sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

def normal(name):
    return re.split(r"[^\\w.-]", name)[0].lower().replace("_", "-")

left, needed = ["transformers", "torch", "pytorch-crf", "safetensors"], set()
while left:
    name = normal(left.pop())
    try:
        others = requires(name) or [] if name not in needed else []
    except PackageNotFoundError:
        continue
    needed.add(name)
    left += [other for other in others if "extra ==" not in other]
blocked = {name for name, owners in packages_distributions().items() if not needed & set(map(normal, owners))}
blocked.add("sklearn")  # which packages_distributions of Python 3.10 leaves out
sys.modules |= dict.fromkeys(blocked - set(sys.modules))
"""
"""Blocks, in a process, what is installed and is not one of these four or needed by them."""

ANSWERS = """
import json, sys, time
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

def answers(repo_id, revision, texts):
    options = {"revision": revision, "trust_remote_code": True}
    tokenizer = AutoTokenizer.from_pretrained(repo_id, **options)
    model = AutoModelForTokenClassification.from_pretrained(repo_id, **options).eval()
    output = model(**tokenizer(texts, padding=True, return_tensors="pt"))
    entities = pipeline("token-classification", model=repo_id, **options)(texts)
    return [output.logits.tolist(), output.predictions.tolist(), entities]

time.sleep = lambda seconds: None  # the client's waits between tries
"""


@pytest.fixture(scope="module")
def hub():
    """The only Hub that the client in this process knows."""
    with HubServer() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield hub


@pytest.fixture(scope="module")
def published(hub, tagger, tokenizer, tmp_path_factory):
    """A model at v1, all of it in the commit, and one of another size at v2, whose weights went by LFS."""
    folder = tmp_path_factory.mktemp("published")
    other = new_tagger(tokenizer, seed=1, hidden_size=32)
    hub.lfs = False
    publish.main([str(finish_run(tagger, tokenizer, folder / "v1")), REPO_ID])
    hub.lfs = True
    with prepare(finish_run(other, tokenizer, folder / "v2"), REPO_ID, "v2") as publication:
        send(publication)
    return SimpleNamespace(folder=folder, models={"v1": tagger, "v2": other})


@torch.no_grad()
def assert_answers(found: list, model, tokenizer, texts: list[str]) -> None:
    """That these, of another process, are the model's."""
    logits, predictions, entities = found
    output = model(**tokenizer(texts, padding=True, return_tensors="pt"))
    torch.testing.assert_close(torch.tensor(logits), output.logits, atol=1e-5, rtol=0)
    assert predictions == output.predictions.tolist()
    expected = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)(texts)
    assert sum(map(len, expected)) > len(texts)
    for row, expected_row in zip(entities, expected, strict=True):
        assert [e | {"score": 0} for e in row] == [e | {"score": 0} for e in expected_row]
        assert [e["score"] for e in row] == pytest.approx([e["score"] for e in expected_row], abs=1e-5)


# ---------------------------------------------------------------- loading


@pytest.fixture(scope="module")
def loaded(hub, published, texts, tmp_path_factory):
    """What a process without this package, without a token and with an empty cache said of both tags, and its home."""
    home = tmp_path_factory.mktemp("home")
    code = f"print(json.dumps([sorted(blocked), *(answers({REPO_ID!r}, tag, {texts!r}) for tag in ('v1', 'v2'))]))"
    blocked, *found = hub.run(REQUIREMENTS + ANSWERS + code, home, token=None)
    return SimpleNamespace(home=home, blocked=blocked, found=dict(zip(published.models, found, strict=True)))


@pytest.mark.parametrize("tag", ["v1", "v2"])
def test_a_tag_gives_the_model_that_was_published_under_it(loaded, published, tokenizer, texts, tag):
    assert_answers(loaded.found[tag], published.models[tag], tokenizer, texts)


def test_weights_went_both_ways_and_arrived_whole(hub, published):
    repository = hub.repositories[REPO_ID]
    for tag, by_lfs in (("v1", False), ("v2", True)):
        weights = repository.at(tag).files["model.safetensors"]
        assert isinstance(weights, LFSBlob) == by_lfs
        assert weights == (published.folder / tag / "model.safetensors").read_bytes()
    assert repository.at("main") == repository.at("v2") != repository.at("v1")


def test_loading_needs_transformers_torch_pytorch_crf_and_safetensors_alone(loaded):
    others = {"accelerate", "bilstm_crf_hf", "datasets", "evaluate", "gensim", "seqeval", "sklearn"}
    assert others <= set(loaded.blocked)
    assert not {"transformers", "torch", "torchcrf", "safetensors", "numpy"} & set(loaded.blocked)


@pytest.mark.parametrize(
    "variables",
    [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}],
    ids=["offline", "the Hub cannot be reached"],
)
def test_what_was_loaded_once_loads_without_the_hub(hub, loaded, texts, variables):
    arrived = len(hub.requests)
    code = f"print(json.dumps(answers({REPO_ID!r}, 'v1', {texts!r})))"
    assert hub.run(ANSWERS + code, loaded.home, token=None, **variables) == loaded.found["v1"]
    assert len(hub.requests) == arrived


def test_without_pytorch_crf_the_message_names_it(hub, loaded):
    code = f"""
sys.modules["torchcrf"] = None
try:
    answers({REPO_ID!r}, "v1", [])
except ImportError as error:
    print(json.dumps(str(error)))
"""
    message = hub.run(ANSWERS + code, loaded.home, HF_HUB_OFFLINE="1")
    assert "pip install pytorch-crf" in message
    assert "pip install torchcrf" not in message


def test_nothing_of_a_download_cut_short_is_used_and_the_next_one_is_whole(hub, published, tokenizer, texts, tmp_path):
    """A file of code is cut off once, which the client mends, the weights as often as it tries."""
    code = f"""
    try:
        answers({REPO_ID!r}, "v2", {texts!r})
    except OSError as error:
        from pathlib import Path
        cached = [[path.name, len(path.read_bytes())] for path in Path("hub").glob("models--*/snapshots/*/*")]
        print(json.dumps([str(error), cached, answers({REPO_ID!r}, "v2", {texts!r})]))
    """
    hub.break_after(5000, "GET", "modeling_bilstm_crf.py")
    hub.break_after(20000, "GET", "/lfs/", times=6)
    message, cached, found = hub.run(ANSWERS + textwrap.dedent(code), tmp_path, token=None)
    assert [fault.times for fault in hub.faults[-2:]] == [0, 0]
    assert f"Can't load the model for '{REPO_ID}'" in message
    files = hub.repositories[REPO_ID].at("v2").files
    assert "modeling_bilstm_crf.py" in dict(cached)
    assert "model.safetensors" not in dict(cached)
    assert dict(cached) == {name: len(files[name]) for name, _ in cached}
    assert_answers(found, published.models["v2"], tokenizer, texts)


# ---------------------------------------------------------------- sending


@pytest.fixture
def small(hub, tmp_path, monkeypatch) -> Publication:
    """A publication that takes no time, into a repository that is not there yet."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's waits between tries
    hub.repositories.pop(SMALL_ID, None)
    hub.faults.clear()
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    (folder / "modeling.py").write_text("# 개체명\n", encoding="utf-8")
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "x.yaml").write_text("[]\n")
    return Publication(folder, SMALL_ID, "v1", None)


def files_of(publication: Publication) -> dict[str, bytes]:
    folder = publication.folder
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("private", [True, False])
def test_all_files_are_sent_and_tagged_in_a_new_repository(hub, small, private):
    address = send(small._replace(private=private))
    repository = hub.repositories[SMALL_ID]
    assert repository.private == private
    assert {".gitattributes": repository.commits[0].files[".gitattributes"]} | files_of(small) == repository.at(
        "v1"
    ).files
    assert address == f"{hub.endpoint}/{SMALL_ID}/commit/{repository.at('v1').sha}"


@pytest.mark.parametrize("tag", ["v1", "main"])
def test_a_tag_or_branch_that_is_there_is_not_moved(hub, small, tag):
    send(small)
    (small.folder / "modeling.py").write_text("# another\n")
    before = list(hub.repositories[SMALL_ID].commits)
    with pytest.raises(ValueError, match=f"{SMALL_ID} has a tag or branch {tag} already.*name another one"):
        send(small._replace(revision=tag))
    assert hub.repositories[SMALL_ID].commits == before


def test_code_and_weights_of_an_earlier_version_go_and_what_others_added_stays(hub, small):
    send(small)
    others = {"demo.gif", "handler.py", "examples/modeling_x.py", "onnx/model.safetensors"}
    for name in others:
        HfApi().upload_file(path_or_fileobj=b"GIF89a", path_in_repo=name, repo_id=SMALL_ID)
    (small.folder / "modeling.py").rename(small.folder / "modeling_new.py")
    (small.folder / "model.safetensors").rename(small.folder / "model-00001-of-00001.safetensors")
    send(small._replace(revision="v2"))
    repository = hub.repositories[SMALL_ID]
    assert set(repository.at("v2").files) == {*files_of(small), *others, ".gitattributes"}
    assert {"modeling.py", "model.safetensors"} < set(repository.at("v1").files)


def test_no_file_of_the_code_of_another_version_stays(hub, small):
    """Each file of the package's root that a model took along, and this one does not, is deleted."""
    root = Path(bilstm_crf_hf.__file__).parent
    code = {path.name for path in root.glob("*.py")} - {"__init__.py"}
    assert {"morphemes.py", "crf.py"} < code
    for name in code:
        (small.folder / name).write_text("# of an earlier version\n", encoding="utf-8")
    send(small)
    for name in code - {"crf.py"}:
        (small.folder / name).unlink()
    send(small._replace(revision="v2"))
    repository = hub.repositories[SMALL_ID]
    assert code < set(repository.at("v1").files)
    assert code & set(repository.at("v2").files) == {"crf.py"}


@pytest.mark.parametrize(
    ("lfs", "fault", "commits", "objects"),
    [
        (True, {"count": 100_000, "method": "PUT", "pattern": "^/lfs/", "times": 6}, 1, 0),
        (True, {"count": 50, "method": "POST", "pattern": "/commit/"}, 1, 1),
        (False, {"count": 100_000, "method": "POST", "pattern": "/commit/", "reset": True}, 1, 0),
        (False, {"count": None, "method": "POST", "pattern": "/commit/"}, 2, 0),
        (False, {"count": 0, "method": "POST", "pattern": "/tag/"}, 2, 0),
        (True, {"count": None, "method": "POST", "pattern": "/repos/create"}, 1, 0),
    ],
    ids=["weights", "commit after weights", "commit", "answer to the commit", "tag", "answer to the new repository"],
)
def test_an_upload_cut_short_leaves_nothing_half_written_and_may_be_repeated(hub, small, lfs, fault, commits, objects):
    hub.lfs, stored = lfs, len(hub.objects)
    hub.break_after(**fault)
    with pytest.raises((TRANSPORT_ERROR, RuntimeError)):
        send(small)
    assert hub.faults[-1].times == 0
    repository = hub.repositories[SMALL_ID]
    assert (repository.tags, len(repository.commits), len(hub.objects) - stored) == ({}, commits, objects)
    assert set(repository.at("main").files) - set(files_of(small)) == {".gitattributes"}
    assert len(repository.at("main").files) in (1, 1 + len(files_of(small)))
    send(small)
    assert repository.at("v1") == repository.at("main") == repository.commits[1]
    assert {name: repository.at("v1").files[name] for name in files_of(small)} == files_of(small)
    assert len(repository.commits) == 2


def test_an_overloaded_hub_is_tried_again(hub, small):
    hub.lfs = True
    hub.answer(503, "PUT", "^/lfs/", times=2)
    send(small)
    assert [request.status for request in hub.requests if request.method == "PUT"][-3:] == [503, 503, 200]
    assert set(hub.repositories[SMALL_ID].tags) == {"v1"}


@pytest.mark.parametrize(
    ("token", "error", "message"),
    [
        (None, LocalTokenNotFoundError, "hf auth login"),
        (READ_TOKEN, HfHubHTTPError, "403"),
        (f"hf_{'x' * 34}", HfHubHTTPError, "401"),
    ],
    ids=["none", "for reading", "revoked"],
)
def test_nothing_is_written_without_a_token_for_writing(hub, small, monkeypatch, token, error, message):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(error, match=message) as refusal:
        send(small)
    assert SMALL_ID not in hub.repositories
    assert not token or token not in str(refusal.value)


def test_the_recipe_says_what_went_wrong_and_may_be_repeated(hub, small, monkeypatch, capsys):
    monkeypatch.setattr(publish, "prepare", lambda *_: nullcontext(small))
    hub.lfs = True
    hub.break_after(100_000, "PUT", "^/lfs/", times=6)
    with pytest.raises(SystemExit):
        publish.main([str(small.folder), SMALL_ID])
    assert capsys.readouterr().err.splitlines()[-1].endswith("Error while uploading 'model.safetensors' to the Hub.")
    publish.main([str(small.folder), SMALL_ID])
    sha = hub.repositories[SMALL_ID].at("v1").sha
    assert capsys.readouterr().out.splitlines()[-1] == f"sent: {hub.endpoint}/{SMALL_ID}/commit/{sha}"


# ---------------------------------------------------------------- training that publishes


def train(hub: HubServer, folder: Path, **options: str) -> subprocess.CompletedProcess:
    """Runs recipes/ner.py with --push_to_hub on a few sentences."""
    model = {"embedding_size": 16, "hidden_size": 16, "ngram_buckets": 256, "ngram_embedding_size": 8}
    options = {"output_dir": "run", "config_overrides": json.dumps(model), "num_train_epochs": "1"} | options
    options |= {"max_train_samples": "32", "max_eval_samples": "8", "hub_model_id": "trained", "report_to": "none"}
    command = [sys.executable, RECIPES / "ner.py", "--use_cpu", "--push_to_hub"]
    return subprocess.run(
        [*command, *(part for name, value in options.items() for part in (f"--{name}", value))],
        cwd=folder, env=hub.environment(folder / "home"), capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(hub, folder, hub_revision="first", hub_private_repo="true")


def test_training_publishes_what_it_leaves(hub, trained):
    folder, process = trained
    assert process.returncode == 0, process.stderr
    assert "HTTP Request" not in process.stderr
    repository = hub.repositories[f"{USER}/trained"]
    assert repository.private
    sha, _, sent = repository.at("first")
    assert {"README.md", "config.json", "model.safetensors", "modeling_bilstm_crf.py", "tokenizer.json"} < set(sent)
    assert all((folder / "run" / name).read_bytes() == sent[name] for name in set(sent) - {".gitattributes"})
    assert process.stdout.splitlines()[-1] == f"published: {hub.endpoint}/{USER}/trained/commit/{sha}"
    assert f'model="{USER}/trained", revision="first"' in sent["README.md"].decode()
    assert len(repository.commits) == 2


def test_the_token_is_neither_written_nor_printed_nor_sent_to_where_weights_are(hub, published, trained):
    folder, process = trained
    written = [path for place in (folder, published.folder) for path in place.rglob("*") if path.is_file()]
    assert any(path.name == "training_args.bin" for path in written)
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in process.stdout + process.stderr
    sent = [
        blob
        for repository in hub.repositories.values()
        for commit in repository.commits
        for blob in commit.files.values()
    ]
    assert not [blob for blob in sent if TOKEN.encode() in blob]
    stored = [request for request in hub.requests if request.path.startswith("/lfs/")]
    assert {request.method for request in stored} >= {"PUT"}
    assert not [request for request in stored if request.has_authorization]
