"""Model cards, rendered from the run folder of a trained model."""

import csv
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml
from markupsafe import Markup

from ..evaluation.markdown import (
    escape_markdown,
    formatted,
    markdown_table,
    render_template,
    restrict_markdown,
)
from ..evaluation.runs import CALIBRATION, CONFIG, RESULTS, TRAINING_RUN, read_json
from ..evaluation.tasks import TAGGING, Metric, task_of
from ..models import model_path
from .published_files import PACKAGE

HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
SPLITS = {"eval": "validation", "test": "test"}
"""Splits of a data set, by the prefix of their scores in `all_results.json`."""
NEEDED = ("transformers", "torch", "pytorch-crf", "safetensors")
"""The libraries that the code of a model needs."""


class TrainedModel:
    """The model of a run folder with the facts for its card.

    Attributes:
        config, results, run: contents of `config.json`, `all_results.json` and `training_run.json`.
        arguments: arguments of the training command.
    """

    def __init__(self, folder: Path) -> None:
        self.config, self.results = read_json(folder / CONFIG), read_json(folder / RESULTS)
        self.run = read_json(folder / TRAINING_RUN, "arguments", "hyperparameters", "hardware", "versions")
        self.arguments: dict[str, Any] = self.run["arguments"]
        self.task = task_of(self.config, str(folder / CONFIG))

    @property
    def dataset(self) -> str | None:
        """Return the id of the data set on the Hub, None for other data."""
        return _hub_id(self.arguments["dataset_name"])

    @property
    def data(self) -> Markup:
        """Return a description of the training data in Markdown, of which the author's own keeps its links."""
        named = [self.arguments[name] for name in ("dataset_name", "dataset_config_name") if self.arguments[name]]
        if described := self.arguments["dataset_description"]:
            return restrict_markdown(described.strip().rstrip(".") + ".")
        return escape_markdown(" ".join(named) + "." if named else "Files of the author.")

    @property
    def base_model(self) -> str | None:
        """Return the id of the pretrained encoder on the Hub, None if there is none."""
        named = self.arguments["model_name_or_path"] or self.arguments["embeddings_from"]
        return self.arguments["base_model"] or _hub_id(named)

    @property
    def labels(self) -> list[str]:
        """Return the entity types or classes in alphabetical order."""
        names = self.config["id2label"].values()
        if self.task is TAGGING:
            names = {name.partition("-")[2] for name in names if name != "O"}
        return sorted(names)

    @property
    def selected_from(self) -> int:
        """Return the number of evaluations whose best selected the weights; runs of earlier versions lack it."""
        return self.results.get("selected_from", self.results["epochs"])

    @property
    def calibration(self) -> dict[str, Any] | None:
        """Return what the command `calibrate` has measured, None if the model has another temperature than it wrote."""
        record = self.results.get(CALIBRATION)
        return record if record and record["temperature"] == self.config.get("temperature") else None

    @property
    def examples(self) -> list[str]:
        """Return texts for the snippet and the widget."""
        return list(self.arguments.get("examples") or self.task.examples_in(self.arguments.get("language", "ko")))

    @property
    def settings(self) -> dict[str, Any]:
        """Return the hyperparameters, and the arguments of the training command that shape the model."""
        names = ["head", "distill_from_self", "read_morphemes", "freeze_embeddings", "max_seq_length"]
        names += ["document_context", "merge_labels", "class_weights"]
        if not any(self.arguments[name] for name in ("tokenizer_name", "model_name_or_path", "embeddings_from")):
            names.append("min_frequency")  # of the characters of a new tokenizer
        chosen = {name: self.arguments.get(name) for name in names}
        chosen = {name: value for name, value in chosen.items() if value not in (None, False, [], "none")}
        return self.run["hyperparameters"] | chosen | (self.arguments["config_overrides"] or {})

    def split(self, prefix: str) -> str:
        """Return the name of the split of the data set with a prefix in `SPLITS`."""
        percentage = self.arguments.get(f"{SPLITS[prefix]}_split_percentage")
        return f"train ({percentage} % held out)" if percentage else SPLITS[prefix]

    def scores(self) -> Iterator[tuple[str, Metric, float]]:
        """Yield key of the split in `SPLITS`, metric and value of each score."""
        for prefix in SPLITS:
            for metric in self.task.metrics:
                if f"{prefix}_{metric.key}" in self.results:
                    yield prefix, metric, self.results[f"{prefix}_{metric.key}"]


def render_card(folder: Path, repo_id: str, revision: str, comparison: Path | None = None) -> ModelCard:
    """Return the card of the model in a run folder, with the errors of [`read_json`] and [`task_of`].

    Args:
        repo_id: `name/model` on the Hub.
        revision: tag in the snippet of the card.
        comparison: output folder of the command `compare`, whose table of systems goes into the card.
    """
    model = TrainedModel(folder)
    name = repo_id.split("/")[-1]
    content = render_template(
        "hub/model_card_template.md",
        card_data=Markup(card_metadata(model, name).to_yaml()),
        name=name,
        repo_id=repo_id,
        revision=revision,
        model=model,
        is_tagging=model.task is TAGGING,
        architecture=model.config["architectures"][0],
        has_code=bool(model.config.get("auto_map")),
        splits=SPLITS,
        read_morphemes=model.config.get("read_morphemes"),
        packages=" ".join(_requirement(name) for name in NEEDED),
        comparison=None if comparison is None else _comparison(comparison / "systems.csv"),
    )
    return ModelCard(content)


def card_metadata(model: TrainedModel, name: str) -> ModelCardData:
    """Return the metadata of a card: language, licence, tags, scores (model-index), examples of the widget."""
    results = [
        EvalResult(
            task_type=model.task.pipeline_tag,
            dataset_type=model.dataset or "custom",
            dataset_name=model.dataset or "custom",
            dataset_config=model.arguments["dataset_config_name"],
            dataset_split=model.split(prefix),
            metric_type=metric.hub,
            metric_name=f"{metric.name} ({metric.definition})",
            metric_value=value,
        )
        for prefix, metric, value in model.scores()
    ]
    return ModelCardData(
        language=model.arguments["language"],
        license=model.arguments["license"],
        library_name="transformers",
        pipeline_tag=model.task.pipeline_tag,
        tags=[PACKAGE, model.config["model_type"], *(["korean"] if model.arguments["language"] == "ko" else [])],
        datasets=[model.dataset] if model.dataset else None,
        metrics=sorted({metric.hub for _, metric, _ in model.scores()}),
        base_model=model.base_model,
        model_name=name,
        eval_results=results,
        widget=[{"text": sentence} for sentence in model.examples],
    )


def eval_results_yaml(folder: Path) -> str | None:
    """Return the scores as content of `.eval_results/*.yaml`, None if the data set is not on the Hub."""
    model = TrainedModel(folder)
    if model.dataset is None:
        return None
    entries = [
        EvalResultEntry(
            dataset_id=model.dataset,
            task_id=model.arguments["dataset_config_name"] or "default",
            value=value,
            notes=f"{metric.name}, {model.split(prefix)} split: {metric.definition}",
        )
        for prefix, metric, value in model.scores()
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), allow_unicode=True, sort_keys=False, width=120)


def check_card(card: ModelCard, results: Mapping[str, float], path: Path) -> None:
    """Raise ValueError if a score of a card, in the file `path`, is not one of those of `all_results.json`."""
    known = {value for value in results.values() if isinstance(value, float)}
    for result in card.data.get("eval_results") or []:
        if result.metric_value not in known:
            raise ValueError(
                f"{path}: {result.metric_name} is {result.metric_value}, which is not in {RESULTS}: the card is of "
                "another run. Correct the card, or delete it to have a new one written"
            )


def _hub_id(name: str | None) -> str | None:
    """Return a name if it is an id on the Hub, None if it is a path or the name of a model of the package."""
    return name if name and HUB_ID.fullmatch(name) and not Path(model_path(name)).exists() else None


def _requirement(name: str) -> str:
    """Return the requirement of this package for a library, quoted for a shell if it has versions."""
    (requirement,) = (line for line in requires(PACKAGE) or () if re.split(r"[^\w.-]", line)[0] == name)
    return requirement if requirement == name else f'"{requirement}"'


def _comparison(path: Path) -> str:
    """Return the main columns of the file systems.csv of a comparison in Markdown."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Name the output folder of a comparison")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    formats = {"parameters": ",.0f", "training, s": ",.0f", "sentences a second": ",.0f"}
    formats = {next(name for name in rows[0] if name.startswith("mean ")): ".4f"} | formats
    return markdown_table(
        [
            {"system": row["system"], "runs": int(row["runs"])}
            | {name: formatted(float(row[name]), spec) for name, spec in formats.items()}
            for row in rows
        ]
    )
