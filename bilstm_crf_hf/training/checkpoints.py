"""Checkpoints: whether one is complete, and whether it is of the run that wants to continue from it."""

import hashlib
import json
import logging
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from datasets import Dataset
from safetensors import SafetensorError, safe_open

from ..utils.files import write_atomically

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments

SETTINGS = "run_settings.json"
"""File of a checkpoint with the settings of its run, see [`run_settings`]."""

HARMLESS = re.compile(
    r"output_dir|resume_from_checkpoint|run_name|project|report_to|disable_tqdm|debug|local_rank|do_\w+|log_\w+"
    r"|logging_\w+|save_\w+|push_to_hub|hub_\w+|trackio_\w+|dataloader_(?!drop_last)\w+|ddp_\w+|eval_accumulation_steps"
    r"|per_device_eval_batch_size|skip_memory_metrics|torch_empty_cache_steps|include_\w+|ignore_data_skip|use_cpu"
    r"|restore_callback_states_from_checkpoint|enable_jit_checkpoint|cuda_graphs|accelerator_config"
)
"""Arguments of a training that may change when it is resumed."""

LENGTHS = ("num_train_epochs", "max_steps")
"""Arguments that may change too if the learning rate does not depend on the length of the training."""

logger = logging.getLogger(__name__)


def checkpoint_to_resume(arguments: "TrainingArguments") -> str | None:
    """Return the folder of the checkpoint that training starts from, None for a training from the beginning.

    With `--resume_from_checkpoint true` it is the newest complete checkpoint in `output_dir`, if there is one.

    Raises:
        FileNotFoundError, ValueError: if another value does not name the folder of a complete checkpoint.
    """
    wanted = arguments.resume_from_checkpoint
    if wanted is None or str(wanted).lower() == "false":
        return None
    if str(wanted).lower() != "true":
        if not wanted or not Path(wanted).is_dir():
            raise FileNotFoundError(
                f"{wanted or 'resume_from_checkpoint'}: no such checkpoint: name a folder, or set "
                "resume_from_checkpoint to true"
            )
        if problem := problem_of(Path(wanted)):
            raise ValueError(f"{wanted} cannot be resumed from: {problem}")
        return str(wanted)
    return newest_checkpoint(arguments.output_dir)


def steps_of_checkpoints(output_dir: Path) -> dict[Path, int]:
    """Return the checkpoints in a folder with the numbers of their steps."""
    named = {folder: re.fullmatch(r"checkpoint-(\d+)", folder.name) for folder in output_dir.glob("checkpoint-*")}
    return {folder: int(match[1]) for folder, match in named.items() if match}


def remove_later_checkpoints(output_dir: Path, step: int) -> None:
    """Remove the checkpoints of later steps, which an earlier training left: they would pass for the newest ones."""
    for folder, number in steps_of_checkpoints(output_dir).items():
        if number > step:
            logger.warning("%s is of an earlier training, which this one replaces: it is removed", folder)
            shutil.rmtree(folder)


def newest_checkpoint(output_dir: str) -> str | None:
    """Return the newest complete checkpoint in a folder, None if there is none; a warning names incomplete ones."""
    steps = steps_of_checkpoints(Path(output_dir))
    for folder in sorted(steps, key=steps.__getitem__, reverse=True):
        if (problem := problem_of(folder)) is None:
            return str(folder)
        logger.warning("%s is incomplete (%s): an earlier checkpoint is used", folder, problem)
    logger.warning("there is no complete checkpoint in %s: training starts from the beginning", output_dir)
    return None


def problem_of(folder: Path) -> str | None:
    """Return why training cannot continue from a checkpoint, None if it can.

    `Trainer` writes `trainer_state.json` last. So a checkpoint without a complete one was interrupted. A run that ends
    with its best model needs the checkpoint that was the best so far, too.
    """
    try:
        files = (folder / "trainer_state.json", folder / SETTINGS, *folder.glob("*.json"))
        contents = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in files}
        _open_weights(folder)
    except FileNotFoundError as error:
        return f"it has no {Path(error.filename).name}"
    except (ValueError, KeyError, SafetensorError) as error:
        return f"a file is damaged: {error}"
    best = contents["trainer_state.json"].get("best_model_checkpoint")
    if best is not None and contents[SETTINGS].get("load_best_model_at_end"):
        best = Path(best) if Path(best).is_dir() else folder.with_name(Path(best).name)  # the run may have been moved
        try:
            _open_weights(best)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            return f"{best}, the best checkpoint so far, is missing or damaged: {error}"
    for pattern in ("optimizer.pt", "scheduler.pt", "rng_state*.pth"):
        found = [*folder.glob(pattern)]
        if not found:
            return f"it has no {pattern}, as with save_only_model"
        for path in found:
            if not zipfile.is_zipfile(path):
                return f"{path.name} is damaged"
    return None


def _open_weights(folder: Path) -> None:
    """Raise an error if weights in a folder are missing or cut off."""
    indices = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.safetensors.index.json")]
    shards = {folder / name for index in indices for name in index["weight_map"].values()}
    for weights in shards or [*folder.glob("*model.safetensors")] or [folder / "model.safetensors"]:
        weights.stat()  # its error has the name of the file
        with safe_open(weights, "pt"):
            pass


def run_settings(trainer: "Trainer", choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that the result of a training depends on, as values of JSON; data and vocabulary as fingerprints.

    Args:
        trainer: a trainer with its arguments, model, tokenizer and data.
        choices: settings of the command beside the arguments of the training.
    """
    arguments = trainer.args
    schedule = getattr(arguments, "learning_rate_decay", None) is None and arguments.lr_scheduler_type != "constant"
    values = {field.name: getattr(arguments, field.name) for field in fields(arguments)}
    settings = {
        name: value
        for name, value in values.items()
        if not HARMLESS.fullmatch(name) and (schedule or name not in LENGTHS)
    }
    settings |= choices
    settings["processes"] = arguments.world_size
    model = trainer.model
    settings["model"] = type(model).__name__
    settings["trained parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if (config := getattr(model, "config", None)) is not None:
        skipped = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "auto_map", "custom_pipelines")
        settings |= {f"config.{name}": value for name, value in config.to_dict().items() if name not in skipped}
    settings["vocabulary"] = _vocabulary_fingerprint(trainer.processing_class)
    settings["training data"] = data_fingerprint(trainer.train_dataset)
    settings["validation data"] = data_fingerprint(trainer.eval_dataset)
    return json.loads(json.dumps(settings, default=str))


def _vocabulary_fingerprint(tokenizer: Any) -> str | None:
    """Return a hash of a fast tokenizer without its present padding and truncation, None for anything else."""
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is None:
        return None
    content = json.loads(backend.to_str()) | {"padding": None, "truncation": None}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def data_fingerprint(dataset: Any) -> str | None:
    """Return a hash of the rows of a data set; of one that is not of the library `datasets`, their number if known."""
    if not isinstance(dataset, Dataset):
        return f"{len(dataset)} rows" if hasattr(dataset, "__len__") else None
    content = hashlib.sha256(",".join(dataset.column_names).encode())
    for batch in dataset.with_format("arrow").iter(10_000):
        sink = pa.BufferOutputStream()
        table = batch.combine_chunks().replace_schema_metadata(None)
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        content.update(sink.getvalue())
    return content.hexdigest()[:16]


def save_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a run to a checkpoint."""
    with write_atomically(folder / SETTINGS) as file:
        file.write(json.dumps(settings, ensure_ascii=False, indent=1).encode())


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise ValueError, which names the differences, if a checkpoint is of a run with other settings."""
    path = folder / SETTINGS
    if not path.is_file():
        raise ValueError(f"{folder} cannot be resumed from: it has no {SETTINGS}")
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [name for name in settings if name in before and before[name] != settings[name]]
    if changed:
        changes = [f"{name} was {_short(before[name])}, is {_short(settings[name])}" for name in changed]
        further = ""
        if set(changed) <= set(LENGTHS):
            further = " (to train a finished model further, name its folder with --model_name_or_path)"
        raise ValueError(
            f"{folder} is of a run with other settings ({'; '.join(changes)}): resume with the same settings to finish "
            f"that run{further}, or leave out --resume_from_checkpoint to start over"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
