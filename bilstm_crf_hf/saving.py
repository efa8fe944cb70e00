"""Saving of models as a whole, and loading of what fits. This file is copied into exported model repositories."""

import os
import re
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

from huggingface_hub.utils import WeakFileLock
from safetensors import SafetensorError
from torch import distributed
from transformers import PreTrainedConfig, PreTrainedModel

from .pipeline_bilstm_crf import CUSTOM_PIPELINES
from .sizes import check_sizes, shapes_of, weight_files

SAVING = ".saving"
"""Beginning of the names of a lock and of unfinished folders; the next save removes those of a killed process."""


class SavedModel(PreTrainedModel):
    """A model whose saves replace an earlier one as a whole, and whose configuration has to fit its weights."""

    auto_map: dict[str, str] = {}
    """Classes that load a saved model with `trust_remote_code=True`, beside its own and that of its configuration."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args, **kwargs):
        """Load a model as `PreTrainedModel` does.

        Raises:
            OSError: if the model is missing or its weights are damaged.
            ValueError: if its configuration has sizes that its weights do not have.
        """
        try:
            cls._check_saved_sizes(pretrained_model_name_or_path, kwargs)
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except SafetensorError as error:
            raise OSError(
                f"the weights in {pretrained_model_name_or_path} cannot be read ({error}): "
                "model.safetensors is cut off or damaged, save or download it again"
            ) from error

    @classmethod
    def _check_saved_sizes(cls, name: str | os.PathLike | None, options: dict[str, Any]) -> None:
        """Compare the saved configuration, without the caller's changes, to the weights, before a model is built."""
        hub = {
            key: options[key]
            for key in ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
            if options.get(key) is not None
        }
        if name is None or os.path.isfile(name) or options.get("gguf_file") is not None:
            return
        fields, _ = PreTrainedConfig.get_config_dict(name, _raise_exceptions_for_missing_entries=False, **hub)
        if fields.get("model_type") != cls.config_class.model_type:
            return
        weights = fields.get("transformers_weights")
        try:
            files = weight_files(name, weights, options.get("variant"), options.get("use_safetensors"), **hub)
        except OSError:
            raise
        except Exception as error:  # of the library with which this version of huggingface_hub downloads
            raise OSError(f"Can't load the model for '{name}' ({error}): try again") from error
        if files:
            check_sizes(cls.config_class.from_dict(fields), shapes_of(files), f"config.json of {name}")

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Save the model as `PreTrainedModel` does, with its code.

        The files of an earlier model stay until all new ones are written; then its weights are removed. Other
        processes than the main one write nothing. A second process that saves into the folder waits for the first.

        Raises:
            ValueError: if the configuration does not fit the weights, so that they could not be loaded together.
        """
        self.config.auto_map = dict(self.auto_map)
        is_classifier = self._auto_class == "AutoModelForSequenceClassification"  # which the stock pipeline suits
        self.config.custom_pipelines = {} if is_classifier else CUSTOM_PIPELINES
        directory = Path(save_directory)
        if kwargs.get("distributed_checkpoint"):  # all processes write
            return super().save_pretrained(directory, is_main_process, *args, **kwargs)
        kwargs.setdefault("repo_id", directory.name)
        first = not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank())
        if not (is_main_process and first):
            with tempfile.TemporaryDirectory() as unused:  # a process may have to contribute its part of the weights
                return super().save_pretrained(unused, False, *args, **kwargs)
        directory.mkdir(parents=True, exist_ok=True)
        lock = directory / f"{SAVING}.lock"
        with WeakFileLock(lock):
            try:
                for interrupted in directory.glob(f"{SAVING}-*"):
                    shutil.rmtree(interrupted)
                with tempfile.TemporaryDirectory(prefix=f"{SAVING}-", dir=directory) as folder:
                    super().save_pretrained(folder, True, *args, **kwargs)
                    if files := sorted(Path(folder).glob("model*.safetensors")):
                        check_sizes(self.config, shapes_of(files), "the configuration")
                    replace_model(Path(folder), directory)
            finally:
                if os.name == "posix":  # elsewhere releasing it removes it
                    lock.unlink(missing_ok=True)


def replace_model(new: Path, directory: Path) -> None:
    """Move the files of a saved model to `directory`, and remove the weights there that they supersede.

    Whenever the process is killed, weights of one of the two models are complete and are those that are loaded: the
    file that decides which are loaded, the only one or the index, comes last.
    """
    _rename_shards(new, directory)
    files = sorted(new.iterdir(), key=lambda file: (_loads_weights(file), file.name == "config.json"))
    names = {file.name for file in files}
    for file in files:
        file.replace(directory / file.name)
    for file in directory.iterdir():
        if file.name not in names and any(_supersedes(name, file.name) for name in names):
            file.unlink()


WEIGHTS = re.compile(
    r"(?:pytorch_)?model(?P<variant>\.[^.]+?)?(?:(?:-\w+)?-\d{5}-of-\d{5})?\.(?:safetensors|bin)"
    r"|(?:model\.safetensors|pytorch_model\.bin)\.index(?P<index_variant>\.[^.]+)?\.json"
)
"""Names of the weights of a model, or of their index, in one file or in several."""


def _loads_weights(file: Path) -> bool:
    return bool(WEIGHTS.fullmatch(file.name)) and not re.search(r"-\d{5}-of-\d{5}\.", file.name)


def _supersedes(new: str, old: str) -> bool:
    """Return whether the weights in the file `new` take the place of those in the file `old`."""
    if new.startswith("adapter_model"):
        return old.startswith("adapter_model")
    match, former = WEIGHTS.fullmatch(new), WEIGHTS.fullmatch(old)
    if match is None:
        return False
    if former is None:  # with an adapter, the model that it names would be loaded instead
        return old == "adapter_config.json" or old.startswith("adapter_model.")
    return _variant(match) == _variant(former)


def _variant(match: re.Match[str]) -> str | None:
    return match["variant"] or match["index_variant"]


def _rename_shards(new: Path, directory: Path) -> None:
    """Give new names to shards whose names are in use: replacing one after the other would mix two models."""
    for index in new.glob("*.index*.json"):
        content = index.read_text(encoding="utf-8")
        shards = [file for file in new.iterdir() if re.search(r"-\d{5}-of-\d{5}\.", file.name)]
        if any((directory / shard.name).exists() for shard in shards):
            unique = uuid.uuid4().hex[:8]
            for shard in shards:
                name = re.sub(r"(-\d{5}-of-\d{5}\.)", rf"-{unique}\1", shard.name)
                content = content.replace(f'"{shard.name}"', f'"{name}"')
                shard.rename(new / name)
            index.write_text(content, encoding="utf-8")
