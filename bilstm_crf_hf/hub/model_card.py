"""The card of a trained model, rendered from what its run left (see `reporting.save_run`)."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from ..evaluation.runs import RUN

TEMPLATE = Path(__file__).with_name("model_card_template.md")
REPOSITORY = "bilstm_crf_hf"
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
SPLITS = {"eval": "validation", "test": "test"}
"""Splits of a data set by the prefix of their scores in `all_results.json`."""


class Metric(NamedTuple):
    """A score of `metrics`: its key there, its name to readers, the Hub's metric that it is, and its definition."""

    key: str
    name: str
    hub: str
    definition: str


class Task(NamedTuple):
    """What cards of a pipeline's models have in common."""

    variable: str
    label: str
    metrics: tuple[Metric, ...]
    sentences: tuple[str, ...]


TASKS = {
    "token-classification": Task(
        "tagger",
        "entity type",
        (
            Metric("f1", "F1", "f1", "entities on characters, strict (type and both ends), micro average"),
            Metric("precision", "precision", "precision", "of these entities"),
            Metric("recall", "recall", "recall", "of these entities"),
            Metric(
                "klue_entity_macro_f1", "KLUE entity F1", "f1", "mean of that F1 over the types, as KLUE reports it"
            ),
            Metric(
                "klue_char_macro_f1",
                "KLUE character F1",
                "f1",
                "mean over the tags of the F1 of characters, as KLUE's baseline computes it",
            ),
            Metric(
                "token_f1",
                "token F1",
                "f1",
                "seqeval, strict, on tokens: entities that begin or end inside a token count as found",
            ),
        ),
        (
            "손흥민은 1992년 7월 8일 춘천에서 태어났다.",
            "어제 저녁 여덟 시에 세종문화회관에서 조성진 독주회를 봤다.",
            "삼성전자는 올해 직원 3천 명을 새로 뽑는다.",
        ),
    ),
    "text-classification": Task(
        "classifier",
        "class",
        (
            Metric("accuracy", "accuracy", "accuracy", "share of texts whose class is right"),
            Metric("macro_f1", "macro F1", "f1", "mean of the F1 of the classes"),
        ),
        ("두 시간이 어떻게 지나갔는지 모를 만큼 즐거웠다.", "기대하고 봤는데 끝까지 보기가 힘들었어요."),
    ),
}
ARCHITECTURES = {
    "BiLSTMCRFForTokenClassification": "a bidirectional LSTM with a linear-chain CRF",
    "BiLSTMForSequenceClassification": "a bidirectional LSTM, pooled over the text, with a linear layer",
    "EncoderCRFForTokenClassification": "a pretrained encoder with a linear-chain CRF",
    "EncoderForSequenceClassification": "a pretrained encoder with a head of two linear layers",
}


class TrainedModel:
    """What a run's folder says of its model.

    Attributes:
        config: `config.json`.
        results: `all_results.json`.
        arguments, run: of `training_run.json`, the recipe's arguments and all.
        pipeline_tag, task: the pipeline that the model serves.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the folder.

        Raises:
            FileNotFoundError: a file is missing: the folder is not that of a finished run.
            ValueError: the model is neither a tagger nor a text classifier.
        """
        self.config, self.results, self.run = (
            _read(folder / name) for name in ("config.json", "all_results.json", RUN)
        )
        self.arguments: dict[str, Any] = self.run["arguments"]
        self.pipeline_tag = pipeline_of(self.config, folder)
        self.task = TASKS[self.pipeline_tag]

    @property
    def dataset(self) -> str | None:
        """The data set's id on the Hub."""
        return _hub_id(self.arguments["dataset_name"])

    @property
    def data(self) -> str:
        """The training data in words, a sentence with a full stop."""
        named = [self.arguments[name] for name in ("dataset_name", "dataset_config_name") if self.arguments[name]]
        described = self.arguments["dataset_description"] or (" ".join(named) if named else "Files of the author")
        return described.strip().rstrip(".") + "."

    @property
    def base_model(self) -> str | None:
        """The encoder that the model was made from, if that is on the Hub."""
        named = self.arguments["model_name_or_path"] or self.arguments["embeddings_from"]
        return self.arguments["base_model"] or _hub_id(named)

    @property
    def labels(self) -> list[str]:
        """Entity types, or classes, in alphabetical order."""
        names = self.config["id2label"].values()
        if self.pipeline_tag == "token-classification":
            names = {name.partition("-")[2] for name in names if name != "O"}
        return sorted(names)

    def split(self, prefix: str) -> str:
        """The split of the data set that scores with a prefix are of."""
        percentage = self.arguments.get("validation_split_percentage")
        return f"train ({percentage} % held out)" if prefix == "eval" and percentage else SPLITS[prefix]

    def scores(self) -> Iterator[tuple[str, Metric, float]]:
        """Prefix of the split in `all_results.json`, metric, and value."""
        for prefix in SPLITS:
            for metric in self.task.metrics:
                if f"{prefix}_{metric.key}" in self.results:
                    yield prefix, metric, self.results[f"{prefix}_{metric.key}"]


def pipeline_of(config: Mapping[str, Any], folder: Path) -> str:
    """The pipeline that a model serves, by the name of its architecture.

    Raises:
        ValueError: it is neither a tagger nor a text classifier.
    """
    architecture = (config.get("architectures") or ["a model without a head"])[0]
    for ending, tag in (
        ("ForTokenClassification", "token-classification"),
        ("ForSequenceClassification", "text-classification"),
    ):
        if architecture.endswith(ending):
            return tag
    raise ValueError(f"{folder / 'config.json'}: {architecture} is neither a tagger nor a text classifier")


def render_card(folder: Path, repo_id: str, revision: str, comparison: Path | None = None) -> ModelCard:
    """The card of the model in the folder of a finished run.

    Args:
        folder: what a recipe left.
        repo_id: where the model will be on the Hub, `name/model`.
        revision: the tag that the card's snippet pins.
        comparison: a folder that `recipes/compare.py` wrote, whose table of systems goes into the card.

    Raises:
        FileNotFoundError: the folder is not that of a finished run, or there is no comparison in the other.
        ValueError: the model is neither a tagger nor a text classifier.
    """
    model = TrainedModel(folder)
    name = repo_id.split("/")[-1]
    return ModelCard.from_template(
        card_metadata(model, name),
        template_path=str(TEMPLATE),
        name=name,
        repo_id=repo_id,
        revision=revision,
        variable=model.task.variable,
        sentence=_sentences(model)[0],
        remote_code=bool(model.config.get("auto_map")),
        kiwi_version=model.config.get("kiwi_version") or model.config.get("morphemes"),
        summary=_summary(model),
        label=model.task.label,
        splits=[_split(model, prefix) for prefix in SPLITS if f"{prefix}_loss" in model.results],
        epochs=model.results["epochs"],
        comparison=None if comparison is None else _comparison(comparison / "systems.csv"),
        data=model.data,
        training=_training(model),
        settings=model.run["hyperparameters"] | _model_settings(model),
    )


def card_metadata(model: TrainedModel, name: str) -> ModelCardData:
    """What the Hub reads of a card: language, licence, tags, results as a model-index, sentences of the widget."""
    results = [
        EvalResult(
            task_type=model.pipeline_tag,
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
        pipeline_tag=model.pipeline_tag,
        tags=[REPOSITORY, model.config["model_type"], *(["korean"] if model.arguments["language"] == "ko" else [])],
        datasets=[model.dataset] if model.dataset else None,
        metrics=sorted({metric.hub for _, metric, _ in model.scores()}),
        base_model=model.base_model,
        model_name=name,
        eval_results=results,
        widget=[{"text": sentence} for sentence in _sentences(model)],
    )


def eval_results_yaml(folder: Path) -> str | None:
    """The scores in the form of the Hub's `.eval_results/*.yaml`; None where the data set is not on the Hub."""
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
    """Checks that the scores of a card are those of `all_results.json`.

    Raises:
        ValueError: one of them is not.
    """
    known = {value for value in results.values() if isinstance(value, float)}
    for result in card.data.eval_results or []:
        if result.metric_value not in known:
            raise ValueError(
                f"{path}: {result.metric_name} is {result.metric_value}, which is not in all_results.json: the card is "
                "of another run. Delete it to have it written anew, or correct it"
            )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file: name the folder of a finished run of this version's recipes")
    return json.loads(path.read_text(encoding="utf-8"))


def _hub_id(name: str | None) -> str | None:
    """A name of the Hub; None for a path on this machine."""
    return name if name and HUB_ID.fullmatch(name) and not Path(name).exists() else None


def _sentences(model: TrainedModel) -> list[str]:
    return list(model.arguments.get("examples") or model.task.sentences)


def _summary(model: TrainedModel) -> str:
    architecture = model.config["architectures"][0]
    described = ARCHITECTURES.get(architecture, "fine-tuned from a pretrained encoder")
    finds = "finds entities of the types" if model.task.variable == "tagger" else "gives a text one of the classes"
    return (
        f"`{architecture}`, {described}: {model.results['parameters']:,} parameters. It {finds} "
        f"{', '.join(model.labels)}. Trained with {REPOSITORY}."
    )


def _split(model: TrainedModel, prefix: str) -> dict[str, Any]:
    split = SPLITS[prefix]
    columns = ("precision", "recall", "f1", "number")
    return {
        "description": f"the {model.split(prefix)} split ({model.results[f'{split}_sentences']:,} texts)",
        "scores": [
            {"name": metric.name, "value": value, "definition": metric.definition}
            for at, metric, value in model.scores()
            if at == prefix
        ],
        "labels": [
            {"label": label} | {key: model.results[f"{prefix}_{label}_{key}"] for key in columns}
            for label in model.labels
            if f"{prefix}_{label}_number" in model.results
        ],
    }


def _training(model: TrainedModel) -> str:
    results, versions = model.results, model.run["versions"]
    soft = results.get("train_soft_sentences", 0)
    return (
        f"{results['train_sentences']:,} texts, {results['epochs']} epochs of {results['seconds_per_epoch']:.0f} s, "
        f"{results['train_seconds']:.0f} s in all (evaluation not counted in), on {model.run['hardware']}, "
        f"seed {results['seed']}; {', '.join(f'{library} {version}' for library, version in versions.items())}."
        + (f" Beside these texts {soft:,} with the probabilities of a teacher." if soft else "")
    )


def _model_settings(model: TrainedModel) -> dict[str, Any]:
    """Of the recipe's arguments, those that shape the model."""
    names = ["head", "read_morphemes", "freeze_embeddings", "max_seq_length", "merge_labels", "class_weights"]
    if not any(model.arguments[name] for name in ("tokenizer_name", "model_name_or_path", "embeddings_from")):
        names.append("min_frequency")  # of the characters of a new tokenizer
    chosen = {name: model.arguments.get(name) for name in names}
    chosen = {name: value for name, value in chosen.items() if value not in (None, False, [], "none")}
    return chosen | (model.arguments["config_overrides"] or {})


def _comparison(path: Path) -> str:
    """The columns of a comparison's table of systems that matter to a reader of the card."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file: name a folder that recipes/compare.py wrote")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    score = next(name for name in rows[0] if name.startswith("mean "))
    formats = {score: ".4f", "parameters": ",.0f", "training, s": ",.0f", "sentences a second": ",.0f"}
    lines = ["| system | runs | " + " | ".join(formats) + " |", "|---|---:" + "|---:" * len(formats) + "|"]
    for row in rows:
        cells = [format(float(row[name]), shape) for name, shape in formats.items()]
        lines.append(f"| {' | '.join([row['system'], row['runs'], *cells])} |")
    return "\n".join(lines)
