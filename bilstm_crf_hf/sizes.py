"""Comparison of a configuration with the weights beside it. This file is copied into exported model repositories.

A configuration from somebody else may name a billion layers or tokens, which a computer would try to allocate.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from transformers import PreTrainedConfig
from transformers.modeling_utils import load_state_dict
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from .input_features import direction_widths, direction_windows
from .words import word_width

Shapes = dict[str, tuple[int, ...]]
"""Shapes of tensors by their names."""

HARMLESS = 2**20
"""Largest size that is not dangerous, whatever it is the size of."""

HEADS = ("crf.start_transitions", "classifier.bias", "classifier.5.bias", "tag_classifier.bias")
"""Tensors with an element for each label, of which a model has one or two."""

COUNT = re.compile(r"(?:layers?|groups?|group_num|blocks?|experts)$")
"""Ends of the names of fields that tell how many modules an encoder has."""


def weight_files(
    name: str | os.PathLike, explicit: str | None, variant: str | None, use_safetensors: bool | None, **hub: Any
) -> list[str]:
    """Return the files with the weights that `from_pretrained` loads, downloaded if need be; none if there are none."""
    candidates = [SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME]
    if use_safetensors is False:
        candidates = candidates[2:]
    if variant is not None:
        candidates = [re.sub(r"\.(\w+)$", rf".{variant}.\1", candidate) for candidate in candidates]
    for candidate in candidates if explicit is None else [explicit]:
        path = cached_file(name, candidate, _raise_exceptions_for_missing_entries=False, **hub)
        if path is not None:
            return get_checkpoint_shard_files(name, path, **hub)[0] if path.endswith(".json") else [path]
    return []


def shapes_of(files: Iterable[str | os.PathLike]) -> Shapes:
    """Return the shapes of the tensors in files with weights, without reading these."""
    tensors = (load_state_dict(file, map_location="meta") for file in files)
    return {name: tuple(tensor.shape) for part in tensors for name, tensor in part.items()}


def check_sizes(config: PreTrainedConfig, shapes: Shapes, source: str) -> None:
    """Raise a ValueError with the name of the field if a size in `config` is not that of the tensors.

    Args:
        config: configuration of a model of this package, or of another one, of which the modules are counted.
        shapes: shapes of all tensors of the model.
        source: description of the configuration for the error.
    """
    for field, value, found in _sizes(config, shapes):
        if value != found:
            raise ValueError(f"{source}: {field} is {value}, but the weights have {found}: they do not belong together")
    elements = sum(math.prod(shape) for shape in shapes.values())
    if config.num_labels**2 > max(elements, HARMLESS):
        raise ValueError(f"{source}: {config.num_labels} labels (id2label) are more than the weights can hold")
    encoder = getattr(config, "encoder_config", None)
    fields = config.to_dict() if encoder is None else {"encoder_config": encoder.to_dict()}
    largest = max([HARMLESS, *(size for shape in shapes.values() for size in shape)])
    for field, value in _integers(fields):
        is_count = COUNT.search(field)
        limit = len(shapes) if is_count else largest
        if value > limit and (is_count or encoder is not None):
            raise ValueError(f"{source}: {field} is {value}, but the weights can hold at most {limit}")


def _integers(value: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Yield all integers in a configuration, with their fields."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _integers(each, f"{path}.{name}".lstrip("."))
    elif isinstance(value, int):
        yield path, value


def _tables(config: PreTrainedConfig) -> dict[str, tuple[str, str]]:
    """Return the tables of embeddings of a BiLSTM, and the fields with the numbers of their rows and columns."""
    tables = {"word_embeddings": ("vocab_size", "embedding_size")}
    if config.unit == "words":
        tables["hash_embeddings"] = "word_buckets", "word_embedding_size"
        if config.num_word_vectors:
            tables["word_vectors"] = "num_word_vectors", "word_vector_size"
    elif any(direction_windows(config)):
        tables["ngram_embeddings"] = "ngram_buckets", "ngram_embedding_size"
    return tables


def _sizes(config: PreTrainedConfig, shapes: Shapes, prefix: str = "") -> Iterator[tuple[str, int, int | str]]:
    """Yield fields of `config` with their values and those that the tensors have."""

    def found(tensor: str, dimension: int = 0, factor: int = 1) -> int | str:
        matching = (shape for name, shape in shapes.items() if f".{name}".endswith(f".{tensor}"))
        return next((shape[dimension] * factor for shape in matching), f"no tensor {tensor}")

    def layers(name: str) -> int:
        numbers = (re.search(rf"(?:^|\.){name}\.(\d+)\.forward_lstm\.", tensor) for tensor in shapes)
        return 1 + max((int(match[1]) for match in numbers if match), default=-1)

    if hasattr(config, "ngrams"):
        lstm = "layers.0.forward_lstm"
        for table, names in _tables(config).items():
            for dimension, name in enumerate(names):
                yield f"{prefix}{name}", getattr(config, name), found(f"features.{table}.weight", dimension)
        if config.jamo_embedding_size and config.unit != "words":
            jamo = found("features.jamo_embeddings.weight", 1)
            yield f"{prefix}jamo_embedding_size", config.jamo_embedding_size, jamo
        yield f"{prefix}hidden_size", config.hidden_size, found(f"{lstm}.weight_hh_l0", 1, 2)
        yield f"{prefix}num_hidden_layers", config.num_hidden_layers, layers("layers")
        width = word_width(config) if config.unit == "words" else direction_widths(config)[0]
        yield f"width of the input of the first layer ({prefix}ngrams)", width, found(f"{lstm}.weight_ih_l0", 1)
        yield f"number of {prefix}token_columns", len(config.token_columns), found("features.token_table", 1)
    if nested := getattr(config, "bilstm_config", None):
        yield from _sizes(nested, shapes, "bilstm_config.")
        yield "lstm_hidden_size", config.lstm_hidden_size, found("layer.forward_lstm.weight_hh_l0", 1, 2)
    elif hasattr(config, "num_lstm_layers"):
        yield "num_lstm_layers", config.num_lstm_layers, layers("lstm_layers")
        if config.num_lstm_layers:
            state = found("lstm_layers.0.forward_lstm.weight_hh_l0", 1, 2)
            yield "lstm_hidden_size", config.lstm_hidden_size, state
    elif (size := getattr(config, "classifier_hidden_size", None)) is not None:
        yield "classifier_hidden_size", size, found("classifier.2.bias")
    for head in () if prefix else HEADS:
        if isinstance(labels := found(head), int):
            yield "number of labels (id2label)", config.num_labels, labels
