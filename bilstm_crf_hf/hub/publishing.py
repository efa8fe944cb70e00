"""Putting a trained model on the Hub: what is sent, the checks before anything is, and sending it."""

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
from transformers import Pipeline, pipeline

from ..evaluation.runs import PREDICTIONS, RUN
from ..pipeline_bilstm_crf import BiLSTMCRFTokenClassificationPipeline
from ..utils.files import write_atomically
from .model_card import TASKS, TrainedModel, check_card, eval_results_yaml, render_card

logger = logging.getLogger(__name__)

CARD, EVAL_RESULTS = "README.md", ".eval_results/bilstm_crf_hf.yaml"
LOCAL = (RUN, PREDICTIONS, "trainer_state.json", "training_args.bin", "comparison_run.json", "soft_labels.parquet")
"""Records of a run that stay where they are: with paths, sentences of the data set, or a pickle."""

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
BINARY = (".png", ".jpg", ".jpeg", ".gif", ".model")
"""Pictures, and SentencePiece's models, which may name the file they were trained on: searched where they are text."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
"""Pieces of texts, some of which look like paths."""

TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_(?:[a-z]+_)?[A-Za-z0-9]{20,}|api_org_[A-Za-z]{20,}|gh[opusr]_[A-Za-z0-9]{20,}"
    r"|github_pat_[A-Za-z0-9_]{20,}|sk-(?=[a-z-]*[A-Z0-9])[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16})"
)
"""Access tokens: of the Hub and its organizations, of GitHub, of OpenAI and Anthropic, of AWS."""
ABSOLUTE_PATH = re.compile(
    r"(?<![\w/.<~)}\]*-])(?:file://)?/(?:[\w.@+-]+/)+[\w.@+-]+"
    r"|(?<![\w/.])[A-Za-z]:\\{1,2}[\w.@+-][\w.@+ -]*\\{1,2}[\w.@+-]+"
)
"""At least a folder and what is in it: `/s` or `C:\\n` alone are more often something else. Not in it: the paths of
URLs, those relative to something (`./a/b`, `~/a/b`, `${A}/b/c`), and words with slashes between them."""

PINNED = re.compile(r'model="([^"]+)", revision="([^"]+)"')
"""Repository and tag of the snippet in a card."""

REPLACED = re.compile(
    r"(?:modeling|configuration|pipeline)\w*\.py|(?:alignment|crf|input_features|lattice)\.py"
    r"|model[\w-]*\.safetensors(?:\.index\.json)?"
)
"""Names of exported code and of weights, which those of another version must not lie beside."""

COMPARED_TEXTS = 20
TOLERANCE = 1e-4
"""Of probabilities: single precision, in another process."""


class Publication(NamedTuple):
    """What goes to the Hub: all files of a folder, the repository, and the tag that they get."""

    folder: Path
    repo_id: str
    revision: str
    private: bool | None


@contextmanager
def prepare(
    folder: Path,
    repo_id: str,
    revision: str = "v1",
    private: bool | None = None,
    comparison: Path | None = None,
) -> Iterator[Publication]:
    """Writes the card, if the folder has none, and checks all that would be sent, which lasts as long as the context.

    Args:
        folder: what a recipe left.
        repo_id: `name/model`.
        revision: the tag that the files get, and that the card's snippet pins.
        private: of a repository that is not there yet; None for the Hub's default.
        comparison: see `model_card.render_card`.

    Raises:
        FileNotFoundError: the folder is not that of a finished run.
        ValueError: one of the files must not be sent, the card is of another run or publication, or the model, loaded
            without this package, says something else.
    """
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} is no name on the Hub: give it as name/model")
    validate_repo_id(repo_id)
    model = TrainedModel(folder)
    card_path = folder / CARD
    if not card_path.exists():
        card = render_card(folder, repo_id, revision, comparison)
        with write_atomically(card_path) as file:
            file.write(f"{card}\n".encode())
        logger.info("wrote %s: look at it, and change what you like", card_path)
    card = ModelCard.load(card_path)
    check_card(card, model.results, card_path)
    check_snippet(card, repo_id, revision, card_path)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary, "model")
        staged.mkdir()
        for path in sendable(folder):
            shutil.copy2(path, staged / path.name)
        if (scores := eval_results_yaml(folder)) is not None:
            staged.joinpath(EVAL_RESULTS).parent.mkdir()
            staged.joinpath(EVAL_RESULTS).write_text(scores, encoding="utf-8")
        check_files(staged)
        check_export(folder, staged, model, Path(temporary))
        yield Publication(staged, repo_id, revision, private)


def sendable(folder: Path) -> list[Path]:
    """The files of the folder itself, without what is hidden and the run's own records."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".") and path.name not in LOCAL
    )


def files_of(folder: Path) -> dict[str, Path]:
    """All files below a folder, by their names from there."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def check_snippet(card: ModelCard, repo_id: str, revision: str, path: Path) -> None:
    """Checks that the card's snippet loads what is published.

    Raises:
        ValueError: it loads another repository, or another tag, or names none.
    """
    snippets = PINNED.findall(card.content)
    if not snippets:
        raise ValueError(f'{path}: it has no snippet with model="{repo_id}", revision="{revision}": add one')
    for found in snippets:
        if found != (repo_id, revision):
            raise ValueError(
                f"{path}: its snippet loads {found[0]} at {found[1]}, not {repo_id} at {revision}: correct it, or "
                "delete the card to have it written anew"
            )


def check_files(folder: Path) -> None:
    """Checks that no file has in it what must not get out, and that the weights are safetensors.

    Raises:
        ValueError: with all that was found.
    """
    files, faults = files_of(folder), []
    if not any(name.endswith(".safetensors") for name in files):
        faults.append("there are no weights (*.safetensors)")
    for name, path in files.items():
        suffix = path.suffix.lower()
        if suffix in PICKLED:
            faults.append(f"{name}: may hold pickled code: save it as safetensors, or move it away")
        else:
            try:
                text = _text(path)
            except UnicodeDecodeError:
                faults.append(f"{name}: is no text (in UTF-8), so it cannot be looked through: move it away")
            else:
                faults += [f"{name}:{fault}" for fault in _secrets(text, has_paths=name not in VOCABULARIES)]
    if faults:
        raise ValueError("nothing was sent:\n  " + "\n  ".join(faults))


def _text(path: Path) -> str:
    """A file's text; of a safetensors file the header, of `BINARY` ones what can be read in them."""
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return file.read(min(length, path.stat().st_size)).decode()
    if suffix in BINARY:
        return b"\n".join(re.findall(rb"[\x20-\x7e]{8,}", path.read_bytes())).decode()
    return path.read_text(encoding="utf-8")


def _secrets(text: str, has_paths: bool) -> Iterator[str]:
    """Lines, by number, with a token (which is not repeated) or a path of this machine."""
    own = get_token()
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), line)  # as JSON writes Hangul
        if TOKEN.search(line) or (own and own in line):
            yield f"{number}: an access token: take it out, and revoke it"
        elif has_paths and (found := ABSOLUTE_PATH.search(line)):
            yield f"{number}: a path of this machine, {found[0]}: take it out"


# The model without the package

CLEAN = """
import json, sys
sys.modules["bilstm_crf_hf"] = None
from transformers import pipeline
task, folder, texts, options = json.loads(sys.stdin.read())
answers = pipeline(task, folder, trust_remote_code=True, device="cpu")(texts, **options)
print(json.dumps(answers, default=float))
"""


def check_export(folder: Path, staged: Path, model: TrainedModel, scratch: Path) -> None:
    """Checks that the files to be sent, loaded in a process that cannot import this package, say what the model says.

    Args:
        folder: the run's.
        staged: what is to be sent.
        model: what the run's folder says of it.
        scratch: for code that is loaded.

    Raises:
        ValueError: they do not load, or say something else.
    """
    task = model.pipeline_tag
    options = {} if task == "token-classification" else {"top_k": None, "truncation": True}
    texts = _texts(folder, task)
    ours = json.loads(json.dumps(_pipeline(folder, model.config, task)(texts, **options), default=float))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(scratch / "modules")}
    environment |= {"HF_TOKEN_PATH": str(scratch / "no-token")}  # the code may be somebody else's
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        environment.pop(name, None)
    result = subprocess.run(
        [sys.executable, "-c", CLEAN],
        input=json.dumps([task, str(staged), texts, options]),
        capture_output=True,
        text=True,
        cwd=scratch,
        env=environment,
        check=False,
    )
    if result.returncode:
        raise ValueError(f"nothing was sent: the files do not load without {__package__}:\n{result.stderr.strip()}")
    theirs = json.loads(result.stdout.splitlines()[-1])
    for text, expected, found in zip(texts, ours, theirs, strict=True):
        if not _equal(expected, found):
            raise ValueError(
                f"nothing was sent: without {__package__} the model says something else of {text!r}:\n  {found}\n  "
                f"instead of\n  {expected}\nSave the model again, so that its code is that of this version"
            )


def _texts(folder: Path, task: str) -> list[str]:
    path = folder / PREDICTIONS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [*TASKS[task].sentences, *(json.loads(line)["text"] for line in lines[:COMPARED_TEXTS])]


def _pipeline(folder: Path, config: dict[str, Any], task: str) -> Pipeline:
    """The pipeline with the classes of this package."""
    own = task in config.get("custom_pipelines", {})
    options = {"pipeline_class": BiLSTMCRFTokenClassificationPipeline} if own else {}
    return pipeline(task, model=str(folder), device="cpu", **options)


def _equal(expected: Any, found: Any) -> bool:
    """Whether two answers differ by rounding at most."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(_equal(expected[key], found[key]) for key in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(_equal, expected, found))
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(expected, found, rel_tol=0, abs_tol=TOLERANCE)
    return expected == found


# Sending


def describe(publication: Publication) -> str:
    """What would be sent, where to."""
    sizes = {name: path.stat().st_size for name, path in files_of(publication.folder).items()}
    lines = [f"  {size:>12,}  {name}" for name, size in sizes.items()]
    visible = {None: "as visible as the Hub's default", True: "private", False: "public"}[publication.private]
    return "\n".join(
        [
            f"{publication.repo_id} ({visible}, if it is new), tag {publication.revision}: {len(sizes)} files, "
            f"{sum(sizes.values()):,} bytes",
            *lines,
        ]
    )


def send(publication: Publication, token: str | None = None) -> str:
    """Creates the repository if need be, sends the files, and tags the commit; the commit's address.

    After an interruption it can be started again: a commit is there whole or not at all, and the tag comes last. Code
    and weights of an earlier version (`REPLACED`) that are not among the files are deleted there, other files are left.

    Args:
        token: None for that of `hf auth login`, or of `HF_TOKEN`.

    Raises:
        ValueError: the tag is there already, or it is the name of a branch.
        LocalTokenNotFoundError: there is no token.
        HfHubHTTPError: the Hub refuses.
        httpx2.TransportError, RuntimeError: it cannot be reached, or the connection was lost.
    """
    api = HfApi(token=token or True)
    repo_id, revision = publication.repo_id, publication.revision
    api.create_repo(repo_id, private=publication.private, exist_ok=True)
    refs = api.list_repo_refs(repo_id)
    if revision in {ref.name for ref in (*refs.tags, *refs.branches)}:
        raise ValueError(
            f"{repo_id} has a tag or branch {revision} already, and tags do not move: name the next one (--revision)"
        )
    outdated = {name for name in api.list_repo_files(repo_id) if REPLACED.fullmatch(name)} - set(
        files_of(publication.folder)
    )
    if outdated:
        logger.info("deleted there, as of an earlier version: %s", ", ".join(sorted(outdated)))
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=publication.folder,
        delete_patterns=sorted(outdated),
        commit_message=f"Model {revision}, by {__package__}",
    )
    api.create_tag(repo_id, tag=revision, revision=commit.oid)
    return commit.commit_url
