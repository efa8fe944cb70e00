"""Publication of a trained model on the Hub: selection of the files, checks, and the upload."""

import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, ModelCard, get_token
from huggingface_hub.utils import validate_repo_id
from transformers import pipeline

from ..evaluation.runs import LOCAL_FILES, PREDICTIONS, read_predictions
from ..evaluation.tasks import TAGGING
from ..pipeline_bilstm_crf import BiLSTMCRFTokenClassificationPipeline
from ..utils.files import write_atomically
from .model_card import PACKAGE, TrainedModel, check_card, eval_results_yaml, render_card

logger = logging.getLogger(__name__)

CARD, EVAL_RESULTS = "README.md", ".eval_results/bilstm_crf_hf.yaml"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
"""Endings of files that may contain pickled code."""
BINARY = (".png", ".jpg", ".jpeg", ".gif", ".model")
"""Endings of pictures and SentencePiece models, whose readable parts are checked: they may name a file."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
"""Files that are not checked for paths: some of their tokens look like paths."""

TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_(?:[a-z]+_)?[A-Za-z0-9]{20,}|api_org_[A-Za-z]{20,}|gh[opusr]_[A-Za-z0-9]{20,}"
    r"|github_pat_[A-Za-z0-9_]{20,}|sk-(?=[a-z-]*[A-Z0-9])[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16})"
)
"""Access tokens of the Hub and its organizations, GitHub, OpenAI, Anthropic and AWS."""
ABSOLUTE_PATH = re.compile(
    r"(?<![\w/.<~)}\]*-])(?:file://)?/(?:[\w.@+-]+/)+[\w.@+-]+"
    r"|(?<![\w/.])[A-Za-z]:\\{1,2}[\w.@+-][\w.@+ -]*\\{1,2}[\w.@+-]+"
)
"""Absolute paths of a folder and something in it; `/s` or `C:\\n` alone are more often something else. Paths in URLs,
relative paths (`./a/b`, `~/a/b`, `${A}/b/c`) and words separated by slashes do not match."""

PINNED = re.compile(r'model="([^"]+)", revision="([^"]+)"')
"""Repository and tag in the snippet of a card."""

CODE = {path.name for path in Path(__file__).parents[1].glob("*.py")} - {"__init__.py"}
"""The code that a saved model may contain: all files of the package's root."""

EXPORTED = re.compile(
    r"(?:configuration|modeling|pipeline|processing)\w*\.py|model[\w-]*\.safetensors(?:\.index\.json)?"
)
"""Names of weights, and of code that models of other releases may contain."""

COMPARED_TEXTS = 20
"""Number of validation texts in the check of an export."""
TOLERANCE = 1e-4
"""Largest difference of two probabilities, which are computed in single precision in two processes."""


class Publication(NamedTuple):
    """A checked publication: the folder with all its files, the repository, its visibility if new, and the tag."""

    folder: Path
    repo_id: str
    revision: str
    private: bool | None


@contextmanager
def prepare(
    folder: Path, repo_id: str, revision: str = "v1", private: bool | None = None, comparison: Path | None = None
) -> Iterator[Publication]:
    """Write the card, if the folder has none, collect the files to be sent in a temporary folder, and check them.

    The files are neither hidden nor in `runs.LOCAL_FILES`. The temporary folder exists as long as the context.

    See `model_card.render_card` for the arguments; `private` is for a new repository, None the default of the Hub.

    Raises:
        FileNotFoundError: if a file of the run is missing.
        ValueError: if a file must not be published, the card is of another run or publication, or the model has another
            output when it is loaded without this package.
    """
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} is not the name of a repository: give it as name/model")
    validate_repo_id(repo_id)
    model = TrainedModel(folder)
    card_path = folder / CARD
    if not card_path.exists():
        with write_atomically(card_path) as file:
            file.write(f"{render_card(folder, repo_id, revision, comparison)}\n".encode())
        logger.info("wrote %s: read it, and edit it if needed", card_path)
    card = ModelCard.load(card_path)
    check_card(card, model.results, card_path)
    check_snippet(card, repo_id, revision, card_path)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary, "model")
        staged.mkdir()
        for path in folder.iterdir():
            if path.is_file() and not path.name.startswith(".") and path.name not in LOCAL_FILES:
                shutil.copy2(path, staged / path.name)
        if (scores := eval_results_yaml(folder)) is not None:
            staged.joinpath(EVAL_RESULTS).parent.mkdir()
            staged.joinpath(EVAL_RESULTS).write_text(scores, encoding="utf-8")
        check_files(staged)
        check_export(folder, staged, model, Path(temporary))
        yield Publication(staged, repo_id, revision, private)


def files_of(folder: Path) -> dict[str, Path]:
    """Return all files in a folder and its subfolders, by their paths relative to the folder."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def check_snippet(card: ModelCard, repo_id: str, revision: str, path: Path) -> None:
    """Raise ValueError if the snippet of a card, in the file `path`, names another repository or tag, or none."""
    snippets = PINNED.findall(card.content)
    if not snippets:
        raise ValueError(f'{path}: there is no snippet with model="{repo_id}", revision="{revision}": add one')
    for found in snippets:
        if found != (repo_id, revision):
            raise ValueError(
                f"{path}: the snippet loads {found[0]} at {found[1]}, not {repo_id} at {revision}: correct it, or "
                "delete the card to have a new one written"
            )


def check_files(folder: Path) -> None:
    """Raise ValueError if weights are missing, or a file contains a pickle, an access token or a local path."""
    files, faults = files_of(folder), []
    if not any(name.endswith(".safetensors") for name in files):
        faults.append("there are no weights (*.safetensors)")
    for name, path in files.items():
        if path.suffix.lower() in PICKLED:
            faults.append(f"{name}: may contain pickled code: save it as safetensors, or move it away")
            continue
        try:
            faults += [f"{name}:{fault}" for fault in _secrets(_text(path), has_paths=name not in VOCABULARIES)]
        except UnicodeDecodeError:
            faults.append(f"{name}: is not text in UTF-8 and cannot be checked: move it away")
    if faults:
        raise ValueError("nothing was sent:\n  " + "\n  ".join(faults))


def _text(path: Path) -> str:
    """Return the text of a file: the header of a safetensors file, the readable parts of a file in `BINARY`."""
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return file.read(min(length, path.stat().st_size)).decode()
    if suffix in BINARY:
        return b"\n".join(re.findall(rb"[\x20-\x7e]{8,}", path.read_bytes())).decode()
    return path.read_text(encoding="utf-8")


def _secrets(text: str, has_paths: bool) -> Iterator[str]:
    """Yield number and fault of each line with an access token, which is not repeated, or a path of this machine."""
    own = get_token()
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), line)  # as JSON writes Hangul
        if TOKEN.search(line) or (own and own in line):
            yield f"{number}: an access token: remove it, and revoke it"
        elif has_paths and (found := ABSOLUTE_PATH.search(line)):
            yield f"{number}: a path of this machine, {found[0]}: remove it"


CLEAN = """
import json, sys
sys.modules["bilstm_crf_hf"] = None
from transformers import pipeline
task, folder, texts, options = json.loads(sys.stdin.read())
outputs = pipeline(task, folder, trust_remote_code=True, device="cpu")(texts, **options)
print(json.dumps(outputs, default=float))
"""
"""A script that runs the pipeline of a folder without this package."""


def check_export(folder: Path, staged: Path, model: TrainedModel, scratch: Path) -> None:
    """Raise ValueError if the files in `staged` do not load without this package, or give another output than `folder`.

    The check runs in a process that keeps the code that it loads in the folder `scratch`.
    """
    task = model.task
    own = task.pipeline_tag in model.config.get("custom_pipelines", {})
    pipeline_class = {"pipeline_class": BiLSTMCRFTokenClassificationPipeline} if own else {}
    ours = pipeline(task.pipeline_tag, model=str(folder), device="cpu", **pipeline_class)
    texts = list(task.examples)
    if (path := folder / PREDICTIONS).is_file():
        texts += read_predictions(path, task).texts[:COMPARED_TEXTS]
    options = {} if task is TAGGING else {"top_k": None, "truncation": True}
    expected = json.loads(json.dumps(ours(texts, **options), default=float))
    found = _run_without_package([task.pipeline_tag, str(staged), texts, options], scratch)
    for text, our_output, their_output in zip(texts, expected, found, strict=True):
        if not _equal(our_output, their_output):
            raise ValueError(
                f"nothing was sent: without {PACKAGE} the output for {text!r} is\n  {their_output}\n  instead of\n  "
                f"{our_output}\nSave the model again with the code of this version"
            )


def _run_without_package(arguments: list[Any], scratch: Path) -> list[Any]:
    """Return the output of the script `CLEAN`, which runs in the folder `scratch` without the user's access token."""
    # The code that it loads may be somebody else's.
    tokens = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    environment = {name: value for name, value in os.environ.items() if name not in tokens}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(scratch / "modules")}
    environment |= {"HF_TOKEN_PATH": str(scratch / "no-token")}
    result = subprocess.run(
        [sys.executable, "-c", CLEAN],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        cwd=scratch,
        env=environment,
        check=False,
    )
    if result.returncode:
        raise ValueError(f"nothing was sent: the files do not load without {PACKAGE}:\n{result.stderr.strip()}")
    return json.loads(result.stdout.splitlines()[-1])


def _equal(expected: Any, found: Any) -> bool:
    """Return whether two outputs are equal up to rounding."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(_equal(expected[key], found[key]) for key in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(_equal, expected, found))
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(expected, found, rel_tol=0, abs_tol=TOLERANCE)
    return expected == found


# Sending


def describe(publication: Publication) -> str:
    """Return the repository, the tag, and the files with their sizes in bytes."""
    sizes = {name: path.stat().st_size for name, path in files_of(publication.folder).items()}
    lines = [f"  {size:>12,}  {name}" for name, size in sizes.items()]
    visibility = {None: "default visibility", True: "private", False: "public"}[publication.private]
    first = f"{publication.repo_id} ({visibility}, if it is new), tag {publication.revision}: {len(sizes)} files"
    return "\n".join([f"{first}, {sum(sizes.values()):,} bytes", *lines])


def send(publication: Publication) -> str:
    """Create the repository if it does not exist, upload the files in one commit, tag it, and return its address.

    After an interruption the upload can be started again: a commit is complete or absent, and the tag comes last. Code
    and weights of other versions (`CODE`, `EXPORTED`) are deleted in the repository, all other files stay.

    Raises:
        ValueError: if the tag exists already, or is the name of a branch.
        LocalTokenNotFoundError: if there is no token.
        HfHubHTTPError: if the Hub refuses the request.
        httpx2.TransportError, RuntimeError: if the Hub cannot be reached, or the connection is lost.
    """
    api = HfApi(token=True)
    repo_id, revision = publication.repo_id, publication.revision
    api.create_repo(repo_id, private=publication.private, exist_ok=True)
    refs = api.list_repo_refs(repo_id)
    if revision in {ref.name for ref in (*refs.tags, *refs.branches)}:
        raise ValueError(
            f"{repo_id} has a tag or branch {revision} already, and tags are not moved: name another one (--revision)"
        )
    there, sent = set(api.list_repo_files(repo_id)), set(files_of(publication.folder))
    if outdated := sorted(name for name in there - sent if name in CODE or EXPORTED.fullmatch(name)):
        logger.info("deleted in the repository, as files of another version: %s", ", ".join(outdated))
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=publication.folder,
        delete_patterns=outdated,
        commit_message=f"Model {revision}, by {PACKAGE}",
    )
    api.create_tag(repo_id, tag=revision, revision=commit.oid)
    return commit.commit_url
