"""The registry of tasks: one entry for tagging, one for classification, with all that depends on the task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from ..inference.predictors import EntityPredictor, LabelPredictor, Predictor, predictor_of
from ..modeling_bilstm_crf import BiLSTMCRFForTokenClassification, BiLSTMForSequenceClassification
from ..modeling_character_encoder import CharacterEncoderForTokenClassification
from ..modeling_encoder import EncoderCRFForTokenClassification, EncoderForSequenceClassification


class Architecture(NamedTuple):
    """A class of models with its description in model cards."""

    model_class: type[PreTrainedModel]
    description: str


class Metric(NamedTuple):
    """A score with its names in `all_results.json` (without `eval_` or `test_`), in tables and on the Hub.

    Attributes:
        definition: one line for model cards.
        in_log: whether training prints and plots the score after each epoch.
    """

    key: str
    name: str
    hub: str
    definition: str
    in_log: bool = True


@dataclass(frozen=True)
class Task:
    """A task with its models and scores.

    Attributes:
        predictor: class that runs the pipeline of the task; its `task` is the pipeline's tag on the Hub.
        bilstm: the model without a pretrained encoder.
        heads: heads for a pretrained encoder, by the values of `--head`.
        metrics: all scores, in the order of tables.
        main_metric: key of the score that ranks systems and selects the best epoch.
        label: the kind of label, in words.
        variable: name of the pipeline in the snippets of model cards.
        examples: Korean sentences for model cards and for the check of an export.
        translations: such sentences in other languages, by their codes.
    """

    title: str
    predictor: type[Predictor]
    bilstm: Architecture
    heads: Mapping[str, Architecture]
    metrics: tuple[Metric, ...]
    main_metric: str
    label: str
    variable: str
    examples: tuple[str, ...]
    translations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def examples_in(self, language: str) -> tuple[str, ...]:
        """Return sentences in a language; English ones if there are none, Korean ones if there are none of these."""
        if language == "ko":
            return self.examples
        return self.translations.get(language) or self.translations.get("en") or self.examples

    @property
    def pipeline_tag(self) -> str:
        """Return the tag of the pipeline on the Hub."""
        return self.predictor.task

    @property
    def main_metric_name(self) -> str:
        """Return the name of the main metric in tables."""
        return self.columns[self.main_metric]

    @property
    def columns(self) -> dict[str, str]:
        """Return the names of the scores that training shows, by their keys."""
        return {metric.key: metric.name for metric in self.metrics if metric.in_log}

    def describe(self, architecture: str) -> str:
        """Return the description of the class `architecture` in model cards."""
        descriptions = {each.model_class.__name__: each.description for each in (self.bilstm, *self.heads.values())}
        return descriptions.get(architecture, "fine-tuned from a pretrained encoder")


TAGGING = Task(
    title="named entities",
    predictor=EntityPredictor,
    bilstm=Architecture(BiLSTMCRFForTokenClassification, "a bidirectional LSTM with a linear-chain CRF"),
    heads={
        "crf": Architecture(EncoderCRFForTokenClassification, "a pretrained encoder with a linear-chain CRF"),
        "characters": Architecture(
            CharacterEncoderForTokenClassification, "a pretrained encoder beside a bidirectional LSTM, with a CRF"
        ),
    },
    metrics=(
        Metric("f1", "F1", "f1", "entities on characters, strict (type and both ends), micro average"),
        Metric("precision", "precision", "precision", "of these entities", in_log=False),
        Metric("recall", "recall", "recall", "of these entities", in_log=False),
        Metric("klue_entity_macro_f1", "KLUE entity F1", "f1", "mean of that F1 over the types, as KLUE reports it"),
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
            "seqeval, default mode, on tokens: entities that begin or end inside a token count as found",
        ),
    ),
    main_metric="f1",
    label="entity type",
    variable="tagger",
    examples=(
        "손흥민은 1992년 7월 8일 춘천에서 태어났다.",
        "어제 저녁 여덟 시에 세종문화회관에서 조성진 독주회를 봤다.",
        "삼성전자는 올해 직원 3천 명을 새로 뽑는다.",
    ),
    translations={
        "en": ("Marie Curie was born in Warsaw.", "The European Commission met in Brussels on Monday."),
        "ja": ("夏目漱石は東京で生まれた。", "トヨタ自動車は名古屋に工場を建てた。"),
        "nl": ("Vincent van Gogh werd geboren in Zundert.", "De Europese Commissie vergaderde maandag in Brussel."),
    },
)

CLASSIFICATION = Task(
    title="text classification",
    predictor=LabelPredictor,
    bilstm=Architecture(
        BiLSTMForSequenceClassification, "a bidirectional LSTM, pooled over the text, with a linear layer"
    ),
    heads={
        "mlp": Architecture(EncoderForSequenceClassification, "a pretrained encoder with a head of two linear layers")
    },
    metrics=(
        Metric("accuracy", "accuracy", "accuracy", "share of texts whose class is right"),
        Metric("macro_f1", "macro F1", "f1", "mean of the F1 of the classes"),
    ),
    main_metric="macro_f1",
    label="class",
    variable="classifier",
    examples=("두 시간이 어떻게 지나갔는지 모를 만큼 즐거웠다.", "기대하고 봤는데 끝까지 보기가 힘들었어요."),
)

TASKS = {task.pipeline_tag: task for task in (TAGGING, CLASSIFICATION)}
"""The tasks by the tags of their pipelines."""


def task_of(config: Mapping[str, Any], source: str) -> Task:
    """Return the task of a saved model from its `config.json`, see [`predictor_of`]."""
    return TASKS[predictor_of(config, source).task]


def label_maps(labels: Sequence[str]) -> dict[str, dict]:
    """Return the fields `id2label` and `label2id` of a configuration for labels in the order of their ids."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
