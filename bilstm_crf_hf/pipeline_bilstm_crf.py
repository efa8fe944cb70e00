"""The token-classification pipeline of CRF models. This file is copied into exported model repositories."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain, groupby, islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers.pipelines.token_classification import AggregationStrategy, TokenClassificationPipeline

from .alignment import Span, entities_of_tokens, render
from .processing_bilstm_crf import (
    UNLIMITED,
    BiLSTMCRFProcessor,
    check_text,
    default_stride,
    own_tokens,
    usable_positions,
)

logger = logging.getLogger(__name__)

BATCH_SIZE = 128
"""Number of texts that are tagged at a time if the caller names no `batch_size`."""

USUAL_LENGTH = 256
"""Number of characters above which fewer texts are tagged at a time, so that the memory of a batch is bounded."""

BATCHES_SORTED = 16
"""Number of batches whose texts are read ahead and sorted by length."""


class BiLSTMCRFTokenClassificationPipeline(TokenClassificationPipeline):
    """A `TokenClassificationPipeline` that reports the Viterbi path of the CRF, with exact probabilities.

    It takes the arguments of the stock pipeline and differs from it in the following:

    - `aggregation_strategy` is `"simple"` by default: entities. Their `score` is the probability under the CRF that
      there is exactly this entity, and not a mean over tokens. `word` is cut from the text.
    - With `"none"`, tokens carry their tags on the Viterbi path, and the marginal probabilities of those tags.
      `"first"`, `"average"` and `"max"` are the stock pipeline's, over marginal probabilities. They give all tokens of
      a word one tag, so that particles become part of Korean entities; a warning says so.
    - No text is truncated. If an encoder has fewer positions than a text has tokens, or if `stride` is given, the model
      reads windows, which share `stride` tokens (32 by default). Their results are joined as in the evaluation.
    - Inputs that follow from the text, such as morphemes, are computed if their libraries are installed.
    - Many texts are tagged in batches of similar length, of 128 texts by default (fewer if texts have more than 256
      characters). The texts may be a list, a tuple, a generator, a column of a data set (`dataset["text"]`, streamed or
      not) or a torch `Dataset`; except for a list or tuple, results are an iterator that reads a few batches ahead.

    Raises:
        ValueError: if a weight is not finite, or for a model that reads the pieces of a second tokenizer.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if hasattr(self.model.config, "bilstm_config"):
            raise ValueError(
                f"{type(self.model).__name__} also reads the pieces of its encoder's tokenizer, which a pipeline does "
                "not have: distill a smaller tagger from it (bilstm-crf distill) for a pipeline"
            )
        check_finite(self.model)
        self.processor = BiLSTMCRFProcessor(self.tokenizer, self.model.config, strict=False)
        self._warned_of_words = False
        self.model.eval()

    def _sanitize_parameters(self, **kwargs):
        parameters = super()._sanitize_parameters(**kwargs)
        if "is_split_into_words" not in kwargs:  # the stock pipeline would forget what it was made with
            del parameters[0]["is_split_into_words"]
        if isinstance(kwargs.get("ignore_labels"), str):
            raise ValueError(f"ignore_labels is {kwargs['ignore_labels']!r}: give a list of labels")
        return parameters

    def __call__(self, inputs, *, batch_size: int | None = None, num_workers: int | None = None, **kwargs):
        """Return the entities of a text, or those of each of many texts; `num_workers` is ignored.

        Raises:
            ValueError: if `inputs` are no texts; with the index of a text, if it cannot be read; if `batch_size` is not
                positive.
        """
        batch_size = next(size for size in (batch_size, self._batch_size, BATCH_SIZE) if size is not None)
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is {batch_size!r}: set it to an integer from 1 on")
        own = (self._preprocess_params, self._forward_params, self._postprocess_params)
        parameters = [old | new for old, new in zip(own, self._sanitize_parameters(**kwargs), strict=True)]
        are_words = parameters[0].get("is_split_into_words", False)
        if isinstance(inputs, (list, tuple)) and inputs and are_words and all(isinstance(word, str) for word in inputs):
            inputs = [inputs]
        is_text = isinstance(inputs, str) and not are_words
        if parameters[0].get("offset_mapping") is not None and not is_text:
            raise ValueError("offset_mapping can only be given with a single text: leave it out")
        if is_text:
            (result,) = self.get_iterator([inputs], num_workers, batch_size, *parameters)
            return result
        if isinstance(inputs, (str, bytes, Mapping, Set)) or not isinstance(inputs, (Iterable, Dataset)):
            expected = "a list of words, or of such lists" if are_words else "a text, or a list or stream of texts"
            raise ValueError(f"the input is of the type {type(inputs).__name__}: give {expected}")
        results = self.get_iterator(inputs, num_workers, batch_size, *parameters)
        return list(results) if isinstance(inputs, (list, tuple)) else results

    def get_iterator(self, inputs, num_workers, batch_size, *parameters):
        """Return an iterator over results that sorts texts by length."""
        check = _check_words if parameters[0].get("is_split_into_words") else _check_text
        return _SortedByLength(inputs, batch_size, check, lambda texts: self._tag(texts, batch_size, *parameters))

    def _tag(self, texts: list, batch_size: int, preprocess: dict, forward: dict, postprocess: dict) -> list:
        """Return the results of texts, whose windows are padded to the longest."""
        if any(module.training for module in self.model.modules()):  # the caller may train it between two calls
            self.model.eval()
        encoded, details = self.encode(texts, **preprocess)
        windows: list[list[dict]] = [[] for _ in texts]
        if len(details) > len(texts):
            batch_size = max(1, batch_size * USUAL_LENGTH // max(USUAL_LENGTH, encoded["input_ids"].shape[1]))
        for start in range(0, len(details), batch_size):
            batch = {name: rows[start : start + batch_size] for name, rows in encoded.items()}
            outputs = self.forward(batch, **forward)
            for name in ("predictions", "path_log_probs"):  # lists are faster to read than tensors
                outputs[name] = outputs[name].tolist()
            for i, (text, detail) in enumerate(details[start : start + batch_size]):
                windows[text].append({name: rows[i : i + 1] for name, rows in outputs.items()} | detail)
        return [self.postprocess(of_text, **postprocess) for of_text in windows]

    def encode(
        self, texts, is_split_into_words=False, delimiter=" ", tokenizer_params=None, offset_mapping=None
    ) -> tuple[dict[str, torch.Tensor], list[tuple[int, dict]]]:
        """Return the inputs of the model, a row for each window, and its text's index and what `postprocess` needs."""
        max_length, stride = None, (tokenizer_params or {}).get("stride")
        if stride is None:
            if getattr(self.model.config, "max_position_embeddings", 0) is None:  # a BiLSTM reads whole texts
                max_length = UNLIMITED
            else:
                stride = default_stride(usable_positions(self.tokenizer, self.model.config))
        encoded = self.processor(
            texts,
            max_length=max_length,
            stride=stride,
            padding=True,
            is_split_into_words=is_split_into_words,
            delimiter=delimiter,
        )
        if is_split_into_words:
            texts = [delimiter.join(words) for words in texts]
        if offset_mapping is not None:
            if [len(row) for row in encoded.offsets] != [len(offset_mapping)]:
                raise ValueError(
                    f"offset_mapping has {len(offset_mapping)} rows: give one for each of the "
                    f"{sum(map(len, encoded.offsets))} tokens of a text that is read in one window"
                )
            encoded.offsets = [offset_mapping]
        details = [
            (text, {"sentence": texts[text], "offset_mapping": [offsets], "stride": stride})
            for text, offsets in zip(encoded.text_ids, encoded.offsets, strict=True)
        ]
        columns = encoded.inputs | {"special_tokens_mask": encoded.special_tokens_mask}
        return {name: torch.tensor(rows) for name, rows in columns.items()}, details

    def _forward(self, model_inputs):
        inputs = {name: rows for name, rows in model_inputs.items() if name != "special_tokens_mask"}
        return {**model_inputs, **self.model(**inputs)}

    def postprocess(self, all_outputs, aggregation_strategy=AggregationStrategy.SIMPLE, ignore_labels=None):
        window = all_outputs[0] if len(all_outputs) == 1 else _join(all_outputs)
        if aggregation_strategy not in (AggregationStrategy.SIMPLE, AggregationStrategy.NONE):
            self._warn_of_words(aggregation_strategy)
            found = super().postprocess([window], aggregation_strategy, ignore_labels)
            return [entity | {"score": float(entity["score"])} for entity in found]  # NumPy's is not written to JSON
        ignored = ["O"] if ignore_labels is None else ignore_labels
        text, offsets = window["sentence"], window["offset_mapping"][0]
        names = self.model.config.id2label
        # The chain of some models has special tokens, which have tags but no place in the text.
        special = window["special_tokens_mask"][0].tolist()
        tags = [None if out else names.get(i) for i, out in zip(window["predictions"][0], special, strict=True)]
        find = self._tokens if aggregation_strategy == AggregationStrategy.NONE else _entities
        return find(text, window, offsets, tags, ignored)

    def _warn_of_words(self, strategy: AggregationStrategy) -> None:
        """Warn, once, that entities will consist of whole words."""
        if not self._warned_of_words:
            self._warned_of_words = True
            logger.warning(
                "aggregation_strategy=%r gives all characters between two spaces one tag, so that entities include the "
                "particles and punctuation of their words (`손흥민은`): use 'simple' for exact entities",
                strategy.value,
            )

    def _tokens(self, text: str, window: dict, offsets: list, tags: list, ignored: list[str]) -> list[dict[str, Any]]:
        log_probs = window["path_log_probs"][0]
        names = self.tokenizer.convert_ids_to_tokens(window["input_ids"][0].tolist())
        return [
            {
                "entity": tag,
                "score": math.exp(log_probs[i][0]),
                "index": i,
                "word": text[slice(*offsets[i])] if names[i] == self.tokenizer.unk_token else names[i],
                "start": offsets[i][0],
                "end": offsets[i][1],
            }
            for i, tag in enumerate(tags)
            if tag is not None and tag not in ignored
        ]


class _SortedByLength:
    """The results of `tag` for batches of texts of similar length, in the order of `inputs`, which `check` checks."""

    def __init__(
        self, inputs: Any, batch_size: int, check: Callable[[Any, str], None], tag: Callable[[list], list]
    ) -> None:
        self.inputs, self.batch_size, self.check, self.tag = inputs, batch_size, check, tag

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        inputs = self._checked()
        while texts := list(islice(inputs, BATCHES_SORTED * self.batch_size)):
            order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
            results: dict[int, list] = {}
            while order:
                size = max(1, self.batch_size * USUAL_LENGTH // max(USUAL_LENGTH, len(texts[order[0]])))
                batch, order = order[:size], order[size:]
                results.update(zip(batch, self.tag([texts[i] for i in batch]), strict=True))
            yield from (results[i] for i in range(len(texts)))

    def _checked(self) -> Iterator:
        # A `Dataset` with indices has a length, and need not raise an IndexError behind it.
        inputs = self.inputs if isinstance(self.inputs, Iterable) else map(self.inputs.__getitem__, range(len(self)))
        for i, text in enumerate(inputs):
            self.check(text, f"text {i}")
            yield text


def _check_text(text: Any, name: str) -> None:
    """Raise ValueError if `text` is no text."""
    if not isinstance(text, str):
        remedy = " (of the rows of a data set, pass the column of the texts)" if isinstance(text, Mapping) else ""
        raise ValueError(f"{name} is {text!r:.80}, and not a string{remedy}")
    check_text(text, name)


def _check_words(words: Any, name: str) -> None:
    """Raise ValueError if `words` are no words of a text."""
    if not isinstance(words, (list, tuple)):
        raise ValueError(f"{name} is {words!r:.80}, and not a list of words, which is_split_into_words calls for")
    for i, word in enumerate(words):
        _check_text(word, f"{name}, word {i}")


def _join(windows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the windows of a text as one, to which each contributes its own tokens."""
    parts = []
    for i, window in enumerate(windows):
        content = (window["special_tokens_mask"][0] == 0).nonzero()[:, 0].tolist()
        own = content[own_tokens(len(content), window["stride"], i == 0, i == len(windows) - 1)]
        parts.append(own if i else [*range(own[0]), *own])  # with [CLS], so that indices are those of a single window
    joined = {name: windows[0][name] for name in ("sentence", "stride")}
    for name in ("predictions", "path_log_probs", "offset_mapping"):
        joined[name] = [[window[name][0][i] for window, part in zip(windows, parts) for i in part]]
    for name in ("logits", "input_ids", "special_tokens_mask"):
        joined[name] = torch.cat([window[name][:, part] for window, part in zip(windows, parts)], 1)
    return joined


def check_finite(model: nn.Module) -> None:
    """Check the weights of a model, in one pass that allocates nothing.

    Raises:
        ValueError: if a parameter holds NaN or infinity, or a buffer NaN (the mask of some encoders is infinite).
    """
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
            continue
        values = tensor.detach().float() if tensor.element_size() == 1 else tensor.detach()  # torch compares no float8
        low, high = values.aminmax()  # both are NaN if any value is
        if low.isnan() or (isinstance(tensor, nn.Parameter) and (low.isinf() or high.isinf())):
            source = getattr(model, "name_or_path", "") or type(model).__name__
            raise ValueError(
                f"{source}: the weight {name} holds NaN or infinity, so that all results would be meaningless: "
                "train the model again, with a lower learning rate, or download it again"
            )


_NAME = f"pipeline_bilstm_crf.{BiLSTMCRFTokenClassificationPipeline.__name__}"
CUSTOM_PIPELINES = {"token-classification": {"impl": _NAME, "pt": ["AutoModelForTokenClassification"]}}
"""Entry of a saved configuration by which `pipeline("token-classification", ...)` finds the class."""


def render_entities(text: str, entities: Iterable[dict[str, Any]]) -> str:
    """Mark the entities of the pipeline in `text`: `<손흥민:PS>은 <춘천:LC>에서 태어났다.`"""
    return render(text, [Span(entity["start"], entity["end"], entity["entity_group"]) for entity in entities])


def _entities(text: str, window: dict, offsets: list, tags: list, ignored: list[str]) -> list[dict[str, Any]]:
    """Return the entities of a window, and runs of O if O is not ignored, as the stock pipeline does."""
    found = [pair for pair in entities_of_tokens(text, offsets, tags) if pair[0].label not in ignored]
    if "O" not in ignored:
        found = sorted(found + list(_runs_outside(offsets, tags)))
    log_probs = window["path_log_probs"][0]
    return [
        {
            "entity_group": label,
            # The probability that there is exactly this entity, see `LinearChainCRF.posterior`.
            "score": math.exp(
                log_probs[tokens[0]][0] + sum(log_probs[i][1] for i in tokens[1:]) + log_probs[tokens[-1]][2]
            ),
            "word": text[start:end],
            "start": start,
            "end": end,
        }
        for (start, end, label), tokens in found
    ]


def _runs_outside(offsets: list[tuple[int, int]], tags: list[str | None]) -> Iterable[tuple[Span, list[int]]]:
    """Yield the runs of tokens tagged O, as spans with their tokens."""
    inside = [i for i, tag in enumerate(tags) if tag is not None]
    for is_outside, run in groupby(inside, key=lambda i: tags[i] == "O"):
        tokens = list(run)
        if is_outside:
            yield Span(offsets[tokens[0]][0], offsets[tokens[-1]][1], "O"), tokens
