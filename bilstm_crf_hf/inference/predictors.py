"""Predictors: pipelines whose results are new columns of the rows of texts, entities or a label."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
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
from ..alignment import character_ranges
from ..data.documents import Context
from ..models import TAGGER, model_path
from ..pipeline_bilstm_crf import (
    CUSTOM_PIPELINES,
    BiLSTMCRFTokenClassificationPipeline,
    check_finite,
    default_workers,
    render_entities,
    use_one_thread_each,
)
from ..processing_bilstm_crf import check_text, default_stride, usable_positions
from ..sizes import check_sizes, shapes_of, weight_files
from ..threads import ordered_map


class Predictor:
    """A pipeline, of transformers or of onnxruntime, whose results become new columns of the rows of texts.

    A subclass has the `task` of the pipeline, the `auto_class` of its models with the names of the classes that
    transformers loads with it, the types of the new `columns`, and their values in `empty` for a text without a visible
    character, which is not passed to the model. `prefix` precedes the names of the new columns, and `options` are those
    of each call of `pipe`.
    """

    task: str
    auto_class: type
    class_names: Mapping[str, str | tuple[str, ...]]
    columns: dict[str, pa.DataType]
    empty: dict[str, Any]
    pipe: Any = None  # a subclass that overrides `__call__` needs none

    def __init__(self, pipe: Any, batch_size: int, prefix: str = "", **options: Any) -> None:
        self.pipe, self.batch_size, self.prefix, self.options = pipe, batch_size, prefix, options

    @classmethod
    def serves(cls, config: Mapping[str, Any]) -> bool:
        """Return whether a saved model has the head of this task.

        `config` is the content of its `config.json`, whose `architectures` name the class. A class with its own code,
        such as those of this package, is found in `auto_map`, others in the tables of transformers.
        """
        architecture = (config.get("architectures") or [None])[0]
        reference = str((config.get("auto_map") or {}).get(cls.auto_class.__name__) or "")
        values = cls.class_names.values()
        known = {name for value in values for name in ([value] if isinstance(value, str) else value)}
        return architecture in known or architecture == reference.split(".")[-1]

    def __call__(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return the values of the new columns for each text.

        Raises:
            ValueError: with the index of the text, if it holds half of a surrogate pair.
        """
        for i, text in enumerate(texts):
            check_text(text, f"text {i}")
        values = [self.empty] * len(texts)
        # Sorted by length, since the stock pipelines pad the texts of a batch to the longest one.
        order = sorted((i for i, text in enumerate(texts) if text.strip()), key=lambda i: len(texts[i]))
        if order:
            results = self._run([texts[i] for i in order])
            for i, result in zip(order, results, strict=True):
                values[i] = self.convert(texts[i], result)
        return values

    @property
    def is_stock(self) -> bool:
        """Return whether the pipeline is one of transformers."""
        return isinstance(self.pipe, Pipeline) and getattr(self.pipe, "processor", None) is None

    def _run(self, texts: list[str]) -> Iterator[Any]:
        """Yield the results of texts; threads run batches of the stock pipelines, as the others do themselves."""
        run = partial(self.pipe, batch_size=self.batch_size, **self.options)
        if not self.is_stock:
            yield from run(texts)
            return
        batches = [texts[start : start + self.batch_size] for start in range(0, len(texts), self.batch_size)]
        workers = default_workers(self.pipe.model, len(batches) == 1)
        # The first batch changes the settings of the tokenizer, which threads must not do side by side.
        yield from chain(*ordered_map(run, batches[:1], min(1, workers), use_one_thread_each))
        yield from chain(*ordered_map(run, batches[1:], workers, use_one_thread_each))

    def convert(self, text: str, result: Any) -> dict[str, Any]:
        """Return the values of the new columns from the result of the pipeline for a text."""
        raise NotImplementedError

    def format_line(self, text: str, values: dict[str, Any]) -> str:
        """Return a text and its values as a line of a `.txt` file."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return everything that predictions depend on, with a hash of weights, configuration and tokenizer."""
        digest = hashlib.sha256()
        for part in _parts(self.pipe):
            digest.update(part)
        return {
            "model": digest.hexdigest()[:16],
            "text_inputs": getattr(getattr(self.pipe, "processor", self.pipe), "text_inputs", {}),
            "batch_size": self.batch_size,
            "column_prefix": self.prefix,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "bilstm_crf_hf": __version__,
        } | getattr(self.pipe, "versions", {})  # those of onnxruntime and tokenizers


def _parts(pipe: Any) -> Iterator[Any]:
    """Yield the contents of a model and its tokenizer."""
    if not isinstance(pipe, Pipeline):
        yield pipe.path.read_bytes()
        yield pipe.tokenizer.to_str().encode()
        return
    yield pipe.model.config.to_json_string().encode()
    yield pipe.tokenizer.backend_tokenizer.to_str().encode()
    for name, tensor in pipe.model.state_dict().items():
        yield name.encode()
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


class EntityPredictor(Predictor):
    """A predictor of the column `entities`: a list like the result of the token-classification pipeline."""

    task = "token-classification"
    auto_class = transformers.AutoModelForTokenClassification
    class_names = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
    entity = {"entity_group": pa.string(), "score": pa.float64(), "start": pa.int64(), "end": pa.int64()}
    columns = {"entities": pa.list_(pa.struct(entity | {"word": pa.string()}))}
    empty = {"entities": []}

    def convert(self, text: str, result: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the entities. `word` is cut from the text, since the stock pipeline decodes it from tokens."""
        places = [(entity["start"], entity["end"]) for entity in result]
        if self.is_stock:  # it takes the offsets of tokens as they are
            places = character_ranges(text, places)
        return {
            "entities": [
                {
                    "entity_group": entity["entity_group"],
                    "score": float(entity["score"]),  # the stock pipeline returns NumPy's
                    "start": start,
                    "end": end,
                    "word": text[start:end],
                }
                for entity, (start, end) in zip(result, places, strict=True)
                if start < end
            ]
        }

    def in_context(self, texts: Sequence[str], contexts: Sequence[Context]) -> list[dict[str, Any]]:
        """Return the entities of texts that are read within their contexts. Those that cross an edge are cut there."""
        read = [f"{before}{text}{after}" for text, (before, after) in zip(texts, contexts, strict=True)]
        found = []
        for text, (before, _), values in zip(texts, contexts, self(read), strict=True):
            entities = []
            for entity in values["entities"]:
                start, end = max(entity["start"] - len(before), 0), min(entity["end"] - len(before), len(text))
                if start < end:
                    entities.append(entity | {"start": start, "end": end, "word": text[start:end]})
            found.append({"entities": entities})
        return found

    def format_line(self, text: str, values: dict[str, Any]) -> str:
        """Return the text with its entities marked, as in `<춘천:LC>에서`."""
        return render_entities(text, values["entities"])


class LabelPredictor(Predictor):
    """A predictor of the columns `label` and `score`: the most probable label and its probability."""

    task = "text-classification"
    auto_class = transformers.AutoModelForSequenceClassification
    class_names = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    columns = {"label": pa.string(), "score": pa.float64()}
    empty = {"label": None, "score": None}

    def convert(self, text: str, result: dict[str, Any]) -> dict[str, Any]:
        """Return the label and its score."""
        return {"label": result["label"], "score": float(result["score"])}

    def format_line(self, text: str, values: dict[str, Any]) -> str:
        """Return the label, a tab and the text."""
        return f"{values['label'] or ''}\t{text}"


PREDICTORS = (EntityPredictor, LabelPredictor)
"""The predictors, one for each pipeline."""


def predictor_of(config: Mapping[str, Any], source: str) -> type[Predictor]:
    """Return the predictor of a saved model from its `config.json`; raise ValueError if the model is no classifier."""
    for name, kind in (("architectures", list), ("auto_map", dict)):
        if not isinstance(field := config.get(name) or kind(), kind):
            raise ValueError(f"{source}: {name} is {field!r}, expected a {kind.__name__}: save the model again")
    for predictor in PREDICTORS:
        if predictor.serves(config):
            return predictor
    architecture = (config.get("architectures") or ["a model without a head"])[0]
    raise ValueError(f"{source}: {architecture} is neither a token classifier nor a text classifier")


BACKENDS = ("torch", "onnx")
"""Libraries that run models."""


def load_pipeline(
    name: str | os.PathLike[str] = TAGGER, *, backend: str = "torch", trust_remote_code: bool = False, **options: Any
) -> Any:
    """Load the pipeline of a token classifier or text classifier, according to the configuration of the model.

    Args:
        name: a model of this package, such as `"nsmc-small"`; a folder; or a name on the Hub.
        backend: `"torch"`, or `"onnx"` for an `onnx_inference.OnnxPipeline`. `name` is then a folder of `bilstm-crf
            export-onnx`, one with such a folder `onnx` in it, or a graph.
        trust_remote_code: run the code that the model brings along.
        options: further arguments of `transformers.pipeline`, such as `device`; for `"onnx"`, no device but the CPU.

    Raises:
        ImportError: if onnxruntime is missing for the backend `"onnx"`.
        OSError: if there is no such model.
        ValueError: if the model is neither of the two, if its files are damaged or do not belong together, if its
            weights are not finite, or if the backend `"onnx"` does not know an option.
    """
    name = os.fspath(name)
    if backend == "onnx":
        return _load_onnx(name, options)
    if backend != "torch":
        raise ValueError(f"backend is {backend!r}: choose one of {', '.join(BACKENDS)}")
    source, hub = model_path(name), {key: options[key] for key in ("revision", "token") if key in options}
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code, **hub)
        kind = predictor_of(config.to_dict(), name)
        # The models of this package do this, too, but others would build any number of layers.
        if files := weight_files(source, getattr(config, "transformers_weights", None), None, None, **hub):
            check_sizes(config, shapes_of(files), f"config.json of {name}")
        ours = kind is EntityPredictor and getattr(config, "custom_pipelines", None) == CUSTOM_PIPELINES
        if ours and (source != name or not trust_remote_code):  # without the code in the model, if there is any
            options.setdefault("pipeline_class", BiLSTMCRFTokenClassificationPipeline)
        pipe = pipeline(kind.task, model=source, trust_remote_code=trust_remote_code, **options)
    except (OSError, ValueError, ImportError):
        raise
    except Exception as error:  # the files of a model of somebody else may make transformers raise anything
        problem = f"the model cannot be loaded ({type(error).__name__}: {error})"
        raise ValueError(f"{name}: {problem}: save or download it again") from error
    check_finite(pipe.model)  # the stock pipelines do not
    return pipe


def _load_onnx(name: str, options: dict[str, Any]) -> Any:
    """Load an exported model.

    Raises:
        FileNotFoundError: if there is no graph.
        ModuleNotFoundError: if onnxruntime is missing.
        ValueError: if there are options beside the device CPU, or if the graph is damaged.
    """
    for option, value in options.items():
        if option != "device" or str(value) not in ("None", "cpu", "-1"):
            raise ValueError(f"{option} is {value!r}: leave it out, the backend 'onnx' runs a folder on the CPU")
    try:
        from .onnx_inference import OnnxPipeline  # an extra of the package
    except ModuleNotFoundError as error:
        message = f"the backend 'onnx' needs {error.name}: pip install \"bilstm-crf-hf[onnx]\""
        raise ModuleNotFoundError(message, name=error.name) from None

    for path in (Path(name), Path(name, "model.onnx"), Path(name, "onnx", "model.onnx")):
        if path.is_file():
            return OnnxPipeline(path)
    raise FileNotFoundError(f"{name} has no model.onnx: write it with `bilstm-crf export-onnx`, and name its folder")


def load_predictor(
    name: str,
    batch_size: int,
    prefix: str = "",
    trust_remote_code: bool = False,
    device: torch.device | None = None,
    backend: str = "torch",
) -> Predictor:
    """Load the predictor of a token classifier or text classifier, see [`load_pipeline`].

    If a text is longer than the model allows, a token classifier reads it in overlapping windows, a text classifier
    reads its beginning. A BiLSTM reads texts of any length.

    Args:
        device: device of the model. Default: that of `transformers.pipeline`.
        backend: library that runs the model, see [`load_pipeline`].

    Raises:
        OSError, ValueError: see [`load_pipeline`]; ValueError also if a label is not a line of text, or if the
            tokenizer is not fast.
    """
    options = {} if backend == "onnx" else {"device": device}
    pipe = load_pipeline(name, backend=backend, trust_remote_code=trust_remote_code, **options)
    kind = next(kind for kind in PREDICTORS if kind.task == pipe.task)
    for label in pipe.labels if backend == "onnx" else pipe.model.config.id2label.values():
        check_text(label, f"{name}: label {label!a}")
        if re.search(r"[\n\r]", label):
            raise ValueError(f"{name}: the label {label!r} has several lines: rename it in config.json")
    if backend == "onnx":
        return kind(pipe, batch_size, prefix)
    config, tokenizer = pipe.model.config, pipe.tokenizer
    if not tokenizer.is_fast:
        raise ValueError(f"{name}: {type(tokenizer).__name__} returns no offsets: save the model with a fast tokenizer")

    call: dict[str, Any] = {"aggregation_strategy": "simple"} if kind is EntityPredictor else {}
    if getattr(config, "max_position_embeddings", 0) is not None:  # None: a BiLSTM
        tokenizer.model_max_length = limit = usable_positions(tokenizer, config)
        call |= {"stride": default_stride(limit)} if kind is EntityPredictor else {"truncation": True}
    return kind(pipe, batch_size, prefix, **call)
