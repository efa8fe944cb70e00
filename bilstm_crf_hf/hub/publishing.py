"""Publication of a trained model on the Hub: the card, the checks, and the upload."""

import json
import logging
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import validate_repo_id
from transformers import pipeline

from ..evaluation.runs import PREDICTIONS, read_predictions
from ..evaluation.tasks import TAGGING
from ..pipeline_bilstm_crf import BiLSTMCRFTokenClassificationPipeline, check_finite
from ..utils.files import locked, write_atomically
from .model_card import TrainedModel, check_card, eval_results_yaml, render_card
from .published_files import CARD, CODE, EVAL_RESULTS, PACKAGE, check_files, copy_published, files_of, secret_variables

logger = logging.getLogger(__name__)

PINNED = re.compile(r'model="([^"]+)", revision="([^"]+)"')
"""Repository and tag in the snippet of a card."""

TAG = re.compile(r"\w(?:[\w+-]|\.(?!\.|lock$|$))*")
"""Names that Git allows for a tag, without those that need quotes."""

EXPORTED = re.compile(
    r"(?:configuration|modeling|pipeline|processing)\w*\.py|model[\w-]*\.safetensors(?:\.index\.json)?"
)
"""Names of weights, and of code that models of other releases may contain."""

COMPARED_TEXTS = 20
"""Number of validation texts in the check of an export."""
TOLERANCE = 1e-4
"""Largest difference of two probabilities, which are computed in single precision in two processes."""


class Publication(NamedTuple):
    """A checked publication.

    Attributes:
        folder: folder with all its files, and no others.
        repo_id, revision: repository and tag.
        private: visibility of the repository, if it is new.
        left_out: names of what the run folder has beside these files.
    """

    folder: Path
    repo_id: str
    revision: str
    private: bool | None
    left_out: Sequence[str] = ()


@contextmanager
def prepare(
    folder: Path, repo_id: str, revision: str = "v1", private: bool | None = None, comparison: Path | None = None
) -> Iterator[Publication]:
    """Write the card, if the folder has none, copy the files to be sent to a temporary folder, and check the copies.

    The files are those of `published_files.PUBLISHED`. The temporary folder exists as long as the context, in which no
    other process that respects the lock writes to the run folder.

    See `model_card.render_card` for the arguments; `private` is for a new repository, None the default of the Hub.

    Raises:
        BlockingIOError: if another process is at work in the folder.
        FileNotFoundError: if a file of the run is missing.
        ValueError: if a file must not be published, the card is of another run or publication, the weights are not
            finite, or the model has another output when it is loaded without this package.
    """
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} is not the name of a repository: give it as name/model")
    validate_repo_id(repo_id)
    if not TAG.fullmatch(revision):
        raise ValueError(f"{revision!r} is not the name of a tag: use letters, digits and single . _ - +")
    with locked(folder), tempfile.TemporaryDirectory() as temporary:
        model = TrainedModel(folder)
        card_path, staged = folder / CARD, Path(temporary, "model")
        if not card_path.exists():
            with write_atomically(card_path) as file:
                file.write(f"{render_card(folder, repo_id, revision, comparison)}\n".encode())
            logger.info("wrote %s: read it, and edit it if needed", card_path)
        if left_out := copy_published(folder, staged):
            logger.info("not sent, since they are no files of a model: %s", ", ".join(left_out))
        if (scores := eval_results_yaml(folder)) is not None:
            staged.joinpath(EVAL_RESULTS).parent.mkdir(exist_ok=True)
            staged.joinpath(EVAL_RESULTS).write_text(scores, encoding="utf-8")
        card = ModelCard.load(staged / CARD)
        check_card(card, model.results, card_path)
        check_snippet(card, repo_id, revision, card_path)
        check_files(staged)
        check_export(folder, staged, model, Path(temporary))
        yield Publication(staged, repo_id, revision, private, left_out)


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
    check_finite(ours.model)
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
    """Return the output of the script `CLEAN`, which runs in the folder `scratch` without the user's secrets."""
    # The code that it loads may be somebody else's.
    secrets = secret_variables()
    environment = {name: value for name, value in os.environ.items() if name not in secrets}
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
    """Return the repository, the tag, the files with their sizes in bytes, and the names of what is left out."""
    sizes = {name: path.stat().st_size for name, path in files_of(publication.folder).items()}
    lines = [f"  {size:>12,}  {name}" for name, size in sizes.items()]
    visibility = {None: "default visibility", True: "private", False: "public"}[publication.private]
    first = f"{publication.repo_id} ({visibility}, if it is new), tag {publication.revision}: {len(sizes)} files"
    lines += [f"  {'left out':>12}  {name}" for name in publication.left_out]
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
