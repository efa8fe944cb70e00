"""Models of finished runs as models of the package, and back as folders that bring their code along."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from transformers.dynamic_module_utils import custom_object_save

from .. import models
from ..evaluation.runs import CONFIG, TRAINING_RUN, read_json
from ..evaluation.tasks import task_of
from ..utils.files import write_folder_atomically, write_json
from .published_files import CARD
from .publishing import PINNED, prepare

OWNER = "bilstm-crf-hf"
"""Owner of the repositories that the snippets of the cards name."""


def add_model(run: Path, name: str) -> Path:
    """Copy the model of a finished run to the models of the package, and return its folder.

    The weights are stored in bfloat16, and loaded in float32, which the configuration names. The code of the model is
    left out, and so are the folders of files in the record of the training. The card also says how the package loads
    the model.

    Raises:
        FileExistsError: if the package has a model of this name.
        FileNotFoundError, ValueError: if the run cannot be published, see [`publishing.prepare`].
    """
    target = models.FOLDER / name
    if target.exists():
        raise FileExistsError(f"{target} exists: delete it first")
    use = f'## Use\n\n`bilstm_crf_hf.load_pipeline("{name}")` loads this model from the package. From the Hub:\n'
    left_out = shutil.ignore_patterns("*.py", "*.png", ".*")
    with prepare(run, f"{OWNER}/{name}") as publication, write_folder_atomically(target) as folder:
        shutil.copytree(publication.folder, folder, ignore=left_out, dirs_exist_ok=True)
        weights = {
            tensor: value.bfloat16() if value.is_floating_point() else value
            for tensor, value in load_file(folder / "model.safetensors").items()
        }
        (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
        write_json(folder / CONFIG, read_json(folder / CONFIG) | {"dtype": "float32"})
        write_json(folder / TRAINING_RUN, _without_folders(read_json(run / TRAINING_RUN)))
        card = (folder / CARD).read_text(encoding="utf-8").replace("## Use\n", use, 1)
        (folder / CARD).write_text(card, encoding="utf-8")
    return target


def _without_folders(value: Any) -> Any:
    """Return a value of JSON with the name of the file in place of each absolute path."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def export_model(name: str, folder: Path) -> None:
    """Write a model of the package to a new folder, with the code that it needs to load without the package."""
    shutil.copytree(models.FOLDER / name, folder)
    config = read_json(folder / CONFIG)
    task = task_of(config, name)
    custom_object_save(task.bilstm.model_class, folder)


@contextmanager
def run_folder(name: str, repo_id: str, revision: str) -> Iterator[Path]:
    """Yield the folder of a run, or that of an exported copy of a model of the package.

    The snippet in the card of the copy names the repository and the revision.
    """
    source = models.model_path(name)
    if source == name:
        yield Path(name)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, name)
        export_model(name, folder)
        card = (folder / CARD).read_text(encoding="utf-8")
        snippet = f'model="{repo_id}", revision="{revision}"'
        (folder / CARD).write_text(PINNED.sub(lambda _: snippet, card), encoding="utf-8")
        yield folder
