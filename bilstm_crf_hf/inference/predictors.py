"""What a pipeline says of texts, as new columns of their rows: entities, or a label."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch
import transformers
from transformers import AutoConfig, Pipeline, pipeline
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

from .. import __version__
from ..pipeline_bilstm_crf import CUSTOM_PIPELINES, BiLSTMCRFTokenClassificationPipeline, render_entities

Row = dict[str, Any]

STRIDE = 32
"""Tokens that the windows of a text share, if it is too long for a model that counts positions."""


class Predictor:
    """What a pipeline says of texts, as new columns of their rows.

    Texts without a visible character are not shown to the model, and get the values `nothing`. Of others, `values`
    reads the columns from the result of the pipeline. `line` is a text with its values in a `.txt` file.

    Args:
        pipe: the pipeline.
        batch_size: texts that are tagged at a time.
        prefix: goes before the names of the columns.
        options: of the call of `pipe`.
    """

    task: str
    columns: dict[str, pa.DataType]
    nothing: Row

    def __init__(self, pipe: Pipeline, batch_size: int, prefix: str = "", **options) -> None:
        self.pipe, self.batch_size, self.prefix, self.options = pipe, batch_size, prefix, options

    def __call__(self, texts: Sequence[str]) -> list[Row]:
        found = [self.nothing] * len(texts)
        # By length, since the stock pipelines pad whatever stands side by side.
        order = sorted((i for i, text in enumerate(texts) if text.strip()), key=lambda i: len(texts[i]))
        if order:
            results = self.pipe([texts[i] for i in order], batch_size=self.batch_size, **self.options)
            for i, result in zip(order, results, strict=True):
                found[i] = self.values(texts[i], result)
        return found

    def settings(self) -> dict[str, Any]:
        """All that predictions depend on; weights, configuration and tokenizer as a hash, wherever they lie."""
        digest = hashlib.sha256(self.pipe.model.config.to_json_string().encode())
        digest.update(self.pipe.tokenizer.backend_tokenizer.to_str().encode())
        for name, tensor in self.pipe.model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return {
            "model": digest.hexdigest()[:16],
            "text_inputs": self.pipe.processor.text_inputs if hasattr(self.pipe, "processor") else {},
            "batch_size": self.batch_size,
            "column_prefix": self.prefix,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "bilstm_crf_hf": __version__,
        }


class EntityPredictor(Predictor):
    """A column `entities`, a list as the token-classification pipeline gives it; `word` is cut from the text."""

    task = "token-classification"
    entity = {"entity_group": pa.string(), "score": pa.float64(), "start": pa.int64(), "end": pa.int64()}
    columns = {"entities": pa.list_(pa.struct(entity | {"word": pa.string()}))}
    nothing = {"entities": []}

    def values(self, text: str, result: list[dict[str, Any]]) -> Row:
        entities = [{name: entity[name] for name in self.entity} for entity in result]
        for entity in entities:  # the stock pipeline's scores are numpy's
            entity |= {"score": float(entity["score"]), "word": text[entity["start"] : entity["end"]]}
        return {"entities": entities}

    def line(self, text: str, values: Row) -> str:
        return render_entities(text, values["entities"])


class LabelPredictor(Predictor):
    """Columns `label` and `score`: the most probable label."""

    task = "text-classification"
    columns = {"label": pa.string(), "score": pa.float64()}
    nothing = {"label": None, "score": None}

    def values(self, text: str, result: dict[str, Any]) -> Row:
        return {"label": result["label"], "score": float(result["score"])}

    def line(self, text: str, values: Row) -> str:
        return f"{values['label'] or ''}\t{text}"


PREDICTORS = {predictor.task: predictor for predictor in (EntityPredictor, LabelPredictor)}

_ARCHITECTURES = {
    "token-classification": ("AutoModelForTokenClassification", MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES),
    "text-classification": ("AutoModelForSequenceClassification", MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
}
"""The Auto class of each pipeline, and the class names that transformers knows for it."""


def pipeline_tag_of(config: Mapping[str, Any], source: str) -> str:
    """Return the tag of the pipeline that a saved model serves.

    Args:
        config: the content of its `config.json`, whose `architectures` name the class. A class of this package, or
            another one with code of its own, is found in `auto_map`, others in the tables of transformers.
        source: what errors call the model.

    Raises:
        ValueError: the model is neither a tagger nor a text classifier.
    """
    architecture = (config.get("architectures") or ["a model without a head"])[0]
    for tag, (auto_class, names) in _ARCHITECTURES.items():
        reference = (config.get("auto_map") or {}).get(auto_class) or ""
        known = {name for value in names.values() for name in ([value] if isinstance(value, str) else value)}
        if architecture in known or architecture == reference.split(".")[-1]:
            return tag
    raise ValueError(f"{source}: {architecture} is neither a token classifier nor a text classifier")


def load_predictor(
    name: str, batch_size: int, prefix: str = "", trust_remote_code: bool = False, device: torch.device | None = None
) -> Predictor:
    """The predictor for a token or text classifier on the Hub or in a folder; which it is, its configuration says.

    A BiLSTM reads texts of any length. Of a text that is too long for it, any other tagger reads windows that overlap,
    any other text classifier the beginning.

    Raises:
        ValueError: the model is neither; its tokenizer is not a fast one.
    """
    config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    kind = PREDICTORS[pipeline_tag_of(config.to_dict(), name)]
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "device": device}
    own = getattr(config, "custom_pipelines", None) == CUSTOM_PIPELINES
    if own and kind is EntityPredictor and not trust_remote_code:
        options["pipeline_class"] = BiLSTMCRFTokenClassificationPipeline  # which is here already
    pipe = pipeline(kind.task, model=name, **options)
    if not pipe.tokenizer.is_fast:
        raise ValueError(f"{name}: its {type(pipe.tokenizer).__name__} gives no offsets: save it with a fast tokenizer")

    call = {"aggregation_strategy": "simple"} if kind is EntityPredictor else {}
    if not config.model_type.startswith("bilstm"):
        positions = getattr(getattr(config, "encoder_config", config), "max_position_embeddings", None)
        limit = min(pipe.tokenizer.model_max_length, positions or pipe.tokenizer.model_max_length)
        pipe.tokenizer.model_max_length = limit
        call |= {"stride": min(STRIDE, limit // 4)} if kind is EntityPredictor else {"truncation": True}
    return kind(pipe, batch_size, prefix, **call)
