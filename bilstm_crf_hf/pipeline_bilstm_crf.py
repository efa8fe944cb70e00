"""The token-classification pipeline of CRF models. This file is copied into exported model repositories."""

import math
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from itertools import chain, groupby, islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers.pipelines.token_classification import AggregationStrategy, TokenClassificationPipeline

from .alignment import Span, entities_of_tokens, render
from .processing_bilstm_crf import UNLIMITED, BiLSTMCRFProcessor

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
      `"first"`, `"average"` and `"max"` are the stock pipeline's, over marginal probabilities.
    - A text is cut into windows of `tokenizer.model_max_length` tokens only if `stride` is given, and never truncated.
    - Inputs that follow from the text, such as morphemes, are computed if their libraries are installed.
    - Many texts are tagged in batches of similar length, of 128 texts by default (fewer if texts have more than 256
      characters). The texts may be a list, a generator, a column of a data set (`dataset["text"]`, streamed or not) or
      a torch `Dataset`; except for a list, results are an iterator that reads a few batches ahead.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_finite(self.model)
        self.processor = BiLSTMCRFProcessor(self.tokenizer, self.model.config, strict=False)
        self.model.eval()  # the stock pipeline leaves this to the caller

    def __call__(self, inputs, batch_size: int | None = None, **kwargs):
        """Return the entities of a text, or those of each of many texts."""
        if batch_size is None and self._batch_size is None:
            batch_size = BATCH_SIZE
        if isinstance(inputs, Iterable) and not isinstance(inputs, (str, list, tuple, Dataset, Generator)):
            inputs = (text for text in inputs)
        return super().__call__(inputs, batch_size=batch_size, **kwargs)

    def get_iterator(self, inputs, num_workers, batch_size, *parameters):
        """Return an iterator over results that sorts texts by length; `num_workers` is ignored."""
        return _SortedByLength(inputs, batch_size, lambda texts: self._tag(texts, batch_size, *parameters))

    def _tag(self, texts: list, batch_size: int, preprocess: dict, forward: dict, postprocess: dict) -> list:
        """Return the results of texts, whose windows are padded to the longest."""
        encoded, details = self.encode(texts, **preprocess)
        windows: list[list[dict]] = [[] for _ in texts]
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
        stride = (tokenizer_params or {}).get("stride")
        encoded = self.processor(
            texts,
            max_length=UNLIMITED if stride is None else None,
            stride=stride,
            padding=True,
            is_split_into_words=is_split_into_words,
            delimiter=delimiter,
        )
        if is_split_into_words:
            texts = [delimiter.join(words) for words in texts]
        details = [
            (text, {"sentence": texts[text], "offset_mapping": offset_mapping or [offsets]})
            for text, offsets in zip(encoded.text_ids, encoded.offsets, strict=True)
        ]
        columns = encoded.inputs | {"special_tokens_mask": encoded.special_tokens_mask}
        return {name: torch.tensor(rows) for name, rows in columns.items()}, details

    def _forward(self, model_inputs):
        inputs = {name: rows for name, rows in model_inputs.items() if name != "special_tokens_mask"}
        return {**model_inputs, **self.model(**inputs)}

    def postprocess(self, all_outputs, aggregation_strategy=AggregationStrategy.SIMPLE, ignore_labels=None):
        if aggregation_strategy not in (AggregationStrategy.SIMPLE, AggregationStrategy.NONE):
            return super().postprocess(all_outputs, aggregation_strategy, ignore_labels)
        ignored = ["O"] if ignore_labels is None else ignore_labels
        text = all_outputs[0]["sentence"]
        names = self.model.config.id2label
        found = []
        for window in all_outputs:
            offsets = window["offset_mapping"][0]
            # The chain of some models has special tokens, which have tags but no place in the text.
            special = window["special_tokens_mask"][0].tolist()
            tags = [None if out else names.get(i) for i, out in zip(window["predictions"][0], special, strict=True)]
            if aggregation_strategy == AggregationStrategy.NONE:
                found += self._tokens(text, window, offsets, tags, ignored)
            else:
                found += _entities(text, window, offsets, tags, ignored)
        return found if len(all_outputs) == 1 else self.aggregate_overlapping_entities(found)

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
    """The results of `tag` for batches of texts of similar length, in the order of `inputs`."""

    def __init__(self, inputs: Collection, batch_size: int, tag: Callable[[list], list]) -> None:
        self.inputs, self.batch_size, self.tag = inputs, batch_size, tag

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        inputs = iter(self.inputs)
        while texts := list(islice(inputs, BATCHES_SORTED * self.batch_size)):
            order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
            results: dict[int, list] = {}
            while order:
                size = max(1, self.batch_size * USUAL_LENGTH // max(USUAL_LENGTH, len(texts[order[0]])))
                batch, order = order[:size], order[size:]
                results.update(zip(batch, self.tag([texts[i] for i in batch]), strict=True))
            yield from (results[i] for i in range(len(texts)))


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
