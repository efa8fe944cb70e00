"""The token-classification pipeline of CRF models. This file is copied into exported model repositories."""

import logging
import math
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import accumulate, groupby, islice
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers.pipelines.token_classification import AggregationStrategy, TokenClassificationPipeline

from .alignment import Span, entities_of_tokens, render
from .morphemes import missing, morpheme_ids

logger = logging.getLogger(__name__)

UNLIMITED = 2**31 - 1
"""A `max_length` in tokens that no text reaches."""

BATCH_SIZE = 128
"""Texts that are tagged at a time if the caller names no `batch_size`."""

USUAL_LENGTH = 256
"""Of texts with more characters than this, fewer are tagged at a time, so that a batch's memory is bounded."""

BATCHES_SORTED = 16
"""Batches whose texts are read ahead and sorted by length."""

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "morpheme_ids")


class BiLSTMCRFTokenClassificationPipeline(TokenClassificationPipeline):
    """`TokenClassificationPipeline` that reports the best path of the CRF, with exact probabilities.

    It takes the arguments of the stock pipeline and differs from it in this:

    - `aggregation_strategy` is `"simple"` by default: entities. Their `score` is the probability that there is exactly
      this entity, its marginal probability under the CRF, and not a mean over tokens. `word` is cut from the text.
    - With `"none"`, tokens carry their tags on the best path, and the marginal probabilities of those tags. `"first"`,
      `"average"` and `"max"` are the stock pipeline's, over marginal probabilities.
    - A text is cut into windows of `tokenizer.model_max_length` tokens only if `stride` is given, and never truncated.
    - A model that reads morphemes gets them from Kiwi, if it is installed (`pip install kiwipiepy`).
    - Many texts are tagged in batches of similar length, 128 unless `batch_size` says otherwise (fewer of texts with
      more than 256 characters), and results come in the order of the texts. They may be a list, a generator, a column
      of a data set (`dataset["text"]`, streamed or not) or a torch `Dataset`; of all but a list, results are an
      iterator that reads a few batches ahead.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not self.tokenizer.is_fast:
            raise ValueError(f"{type(self.tokenizer).__name__} gives no offsets into the text: use a fast tokenizer")
        self.model.eval()  # which the stock pipeline leaves to the caller
        self.reads_morphemes = getattr(self.model.config, "morphemes", None) is not None
        if self.reads_morphemes and (reason := missing(self.model.config.morphemes)):
            self.reads_morphemes = False
            logger.warning("%s. It tags less well without them.", reason)

    def __call__(self, inputs, batch_size: int | None = None, **kwargs):
        """The entities of a text, or of each of many: see the class for what these may be."""
        if batch_size is None and self._batch_size is None:
            batch_size = BATCH_SIZE
        if isinstance(inputs, Iterable) and not isinstance(inputs, (str, list, tuple, Dataset, Generator)):
            inputs = (text for text in inputs)
        return super().__call__(inputs, batch_size=batch_size, **kwargs)

    def get_iterator(self, inputs, num_workers, batch_size, *parameters):
        """In place of the stock pipeline's, which handles text by text; `num_workers` is of no use."""
        return _SortedByLength(inputs, batch_size, lambda texts: self._tag(texts, batch_size, *parameters))

    def _tag(self, texts: list, batch_size: int, preprocess: dict, forward: dict, postprocess: dict) -> list:
        """The results of texts, whose windows are padded to the longest."""
        encoded, details = self.encode(texts, **preprocess)
        windows: list[list[dict]] = [[] for _ in texts]
        for start in range(0, len(details), batch_size):
            outputs = self.forward(
                {name: rows[start : start + batch_size] for name, rows in encoded.items()}, **forward
            )
            for name in ("predictions", "path_log_probs"):  # lists are faster to read than tensors
                outputs[name] = outputs[name].tolist()
            for i, (text, detail) in enumerate(details[start : start + batch_size]):
                windows[text].append({name: rows[i : i + 1] for name, rows in outputs.items()} | detail)
        return [self.postprocess(of_text, **postprocess) for of_text in windows]

    def encode(
        self, texts, is_split_into_words=False, delimiter=" ", tokenizer_params=None, offset_mapping=None
    ) -> tuple[dict[str, torch.Tensor], list[tuple[int, dict]]]:
        """Tensors over the windows of all texts; of each window the number of its text, and what else there is."""
        options = {"truncation": True, "padding": True, "return_overflowing_tokens": True}
        encoded = self.tokenizer(
            texts,
            is_split_into_words=is_split_into_words,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            **options | (tokenizer_params or {"max_length": UNLIMITED}),
        )
        details = []
        for i, text in enumerate(encoded["overflow_to_sample_mapping"]):
            detail = {"sentence": texts[text], "offset_mapping": offset_mapping or [encoded["offset_mapping"][i]]}
            if is_split_into_words:
                ends = list(accumulate(len(word) + len(delimiter) for word in texts[text]))
                characters = [
                    (end - len(delimiter) - len(word), end - len(delimiter)) for word, end in zip(texts[text], ends)
                ]
                detail |= {
                    "sentence": delimiter.join(texts[text]),
                    "word_ids": encoded.word_ids(i),
                    "word_to_chars_map": characters,
                }
            details.append((text, detail))
        if self.reads_morphemes:
            offsets = [_text_offsets(detail, detail.get("word_to_chars_map")) for _, detail in details]
            encoded["morpheme_ids"] = morpheme_ids([detail["sentence"] for _, detail in details], offsets)
        names = [name for name in (*MODEL_INPUTS, "special_tokens_mask") if name in encoded]
        return {name: torch.tensor(encoded[name]) for name in names}, details

    def _forward(self, model_inputs):
        inputs = {name: model_inputs[name] for name in MODEL_INPUTS if name in model_inputs}
        return {**model_inputs, **self.model(**inputs)}

    def postprocess(self, all_outputs, aggregation_strategy=AggregationStrategy.SIMPLE, ignore_labels=None):
        if aggregation_strategy not in (AggregationStrategy.SIMPLE, AggregationStrategy.NONE):
            return super().postprocess(all_outputs, aggregation_strategy, ignore_labels)
        ignored = ["O"] if ignore_labels is None else ignore_labels
        text = all_outputs[0]["sentence"]
        words = all_outputs[0].get("word_to_chars_map")
        names = self.model.config.id2label
        found = []
        for window in all_outputs:
            offsets = _text_offsets(window, words)
            # Some models have special tokens in the chain; these have tags, and no place in the text.
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
    """The results of `tag`, which takes a batch of texts, in the order of `inputs`; texts of like length share one."""

    def __init__(self, inputs: Iterable, batch_size: int, tag: Callable[[list], list]) -> None:
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


CUSTOM_PIPELINES = {
    "token-classification": {
        "impl": f"pipeline_bilstm_crf.{BiLSTMCRFTokenClassificationPipeline.__name__}",
        "pt": ["AutoModelForTokenClassification"],
    }
}
"""Entry of a model's configuration by which `pipeline("token-classification", ...)` finds the class."""


def render_entities(text: str, entities: Iterable[dict[str, Any]]) -> str:
    """`text` with the entities of the pipeline marked inline: `<손흥민:PS>은 <춘천:LC>에서 태어났다.`"""
    return render(text, [Span(entity["start"], entity["end"], entity["entity_group"]) for entity in entities])


def _text_offsets(window: dict, words: list[tuple[int, int]] | None) -> list[tuple[int, int]]:
    """Offsets of tokens in the whole text; for text that came in words, those of a token within its word are moved."""
    offsets = window["offset_mapping"][0]
    if words is None:
        return offsets
    starts = [0 if word is None else words[word][0] for word in window["word_ids"]]
    return [(start + shift, end + shift) for (start, end), shift in zip(offsets, starts, strict=True)]


def _entities(text: str, window: dict, offsets: list, tags: list, ignored: list[str]) -> list[dict[str, Any]]:
    """Entities of a window; also runs of O, if these are not ignored, as the stock pipeline has them."""
    found = [pair for pair in entities_of_tokens(text, offsets, tags) if pair[0].label not in ignored]
    if "O" not in ignored:
        found = sorted(found + list(_runs_outside(offsets, tags)))
    return [
        {
            "entity_group": label,
            "score": _probability(window["path_log_probs"][0], tokens),
            "word": text[start:end],
            "start": start,
            "end": end,
        }
        for (start, end, label), tokens in found
    ]


def _probability(log_probs: list[list[float]], tokens: list[int]) -> float:
    """Of exactly this entity: see `LinearChainCRF.posterior`."""
    first, *others = tokens
    return math.exp(log_probs[first][0] + sum(log_probs[i][1] for i in others) + log_probs[tokens[-1]][2])


def _runs_outside(offsets: list[tuple[int, int]], tags: list[str | None]) -> Iterable[tuple[Span, list[int]]]:
    inside = [i for i, tag in enumerate(tags) if tag is not None]
    for is_outside, run in groupby(inside, key=lambda i: tags[i] == "O"):
        tokens = list(run)
        if is_outside:
            yield Span(offsets[tokens[0]][0], offsets[tokens[-1]][1], "O"), tokens
