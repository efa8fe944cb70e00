"""The token-classification pipeline of CRF models. This file is copied into exported model repositories."""

import logging
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, groupby, islice
from threading import Barrier
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers.pipelines.token_classification import AggregationStrategy, TokenClassificationPipeline

from .alignment import IGNORED, Span, render
from .batching import BATCHES_SORTED, USUAL_LENGTH, map_by_length, matrix, own_token_mask
from .entities import entities_of_batch, tags_of_words
from .processing_bilstm_crf import (
    UNLIMITED,
    BiLSTMCRFProcessor,
    EncodedTexts,
    check_are_words,
    check_batches,
    check_is_text,
    default_stride,
    usable_positions,
)
from .threads import lock_of_process, ordered_map, usable_cpus

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
"""Number of texts that are tagged at a time if the caller names no `batch_size`."""

ENCODER_BATCHES = 8
"""Largest number of batches of an encoder, each of some hundred megabytes, that threads run side by side by default."""


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
    - `is_split_into_words` joins the words of a text by `delimiter`, as in the training. With `return_tags`, the result
      of a text is a list of BIO tags, one for each word, in place of entities, see [`tags_of_words`].
    - Many texts are tagged in batches of similar length, of 64 texts by default (fewer if texts have more than 256
      characters). On the CPU, `num_workers` threads tag a batch each; by default, as many as PyTorch and this process
      may use. The texts may be a list, a tuple, a generator, a column of a data set (`dataset["text"]`, streamed or
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
        return_tags = kwargs.pop("return_tags", None)
        parameters = super()._sanitize_parameters(**kwargs)
        if return_tags is not None:
            parameters[2]["return_tags"] = return_tags
        if "is_split_into_words" not in kwargs:  # the stock pipeline would forget what it was made with
            del parameters[0]["is_split_into_words"]
            if kwargs.get("delimiter") is not None:
                parameters[0]["delimiter"] = kwargs["delimiter"]
        if isinstance(kwargs.get("ignore_labels"), str):
            raise ValueError(f"ignore_labels is {kwargs['ignore_labels']!r}: give a list of labels")
        return parameters

    def __call__(self, inputs, *, batch_size: int | None = None, num_workers: int | None = None, **kwargs):
        """Return the entities of a text, or those of each of many texts; with `return_tags`, the tags of its words.

        Args:
            inputs: a text, or many; with `is_split_into_words`, the words of one or many.
            batch_size: number of texts that the model reads at a time.
            num_workers: number of threads that tag batches; 0 or 1: none beside the calling one. Default: on the CPU,
                as many as PyTorch and this process may use.

        Raises:
            ValueError: if `inputs` are no texts; with the index of a text, if it cannot be read; if `batch_size` is not
                positive, or `num_workers` negative; if `return_tags` is given without words.
        """
        batch_size = next(size for size in (batch_size, self._batch_size, BATCH_SIZE) if size is not None)
        num_workers = self._num_workers if num_workers is None else num_workers
        check_batches(batch_size, num_workers)
        own = (self._preprocess_params, self._forward_params, self._postprocess_params)
        parameters = [old | new for old, new in zip(own, self._sanitize_parameters(**kwargs), strict=True)]
        are_words = parameters[0].get("is_split_into_words", False)
        if parameters[2].get("return_tags") and not are_words:
            raise ValueError("return_tags is for words: give lists of words with is_split_into_words=True")
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
        check = check_are_words if parameters[0].get("is_split_into_words") else check_is_text
        is_single = isinstance(inputs, (list, tuple)) and len(inputs) <= batch_size
        workers = (
            default_workers(self.model, is_single) if num_workers is None else num_workers if num_workers > 1 else 0
        )
        tag: Callable[[list], list] = partial(self._tag, batch_size=batch_size, parameters=parameters)
        if parameters[2].get("return_tags"):
            if parameters[2].get("aggregation_strategy") == AggregationStrategy.NONE:
                raise ValueError("return_tags derives from entities: leave out aggregation_strategy='none'")
            tag = partial(_tag_words, tag, parameters[0].get("delimiter", " "))
        if workers and torch.is_autocast_enabled("cpu"):  # a setting of the calling thread
            tag = partial(_tag_in_autocast, tag, torch.get_autocast_dtype("cpu"))
        if workers:  # further threads of the tokenizer would only be in the way; the stock pipeline does this, too
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return _SortedByLength(inputs, batch_size, check, tag, workers)

    def _tag(self, texts: list, batch_size: int, parameters: Sequence[dict[str, Any]]) -> list:
        """Return the results of texts, whose windows are padded to the longest."""
        preprocess, forward, postprocess = parameters
        if any(module.training for module in self.model.modules()):  # the caller may train it between two calls
            self.model.eval()
        inputs, encoded = self.encode(texts, **preprocess)
        if len(encoded.text_ids) > len(texts):
            batch_size = max(1, batch_size * USUAL_LENGTH // max(USUAL_LENGTH, inputs["input_ids"].shape[1]))
        starts = range(0, len(encoded.text_ids), batch_size)
        batches = [{name: rows[start : start + batch_size] for name, rows in inputs.items()} for start in starts]
        strategy = postprocess.get("aggregation_strategy", AggregationStrategy.SIMPLE)
        ignored = postprocess.get("ignore_labels", ["O"])
        forward = forward | {"output_logits": strategy not in (AggregationStrategy.SIMPLE, AggregationStrategy.NONE)}
        rows = [self.forward(batch, **forward) for batch in batches]
        names = {"input_ids", "logits", "predictions", "path_log_probs"} & rows[0].keys()
        outputs = {name: torch.cat([each[name] for each in rows]) for name in names}
        if strategy == AggregationStrategy.SIMPLE:
            return self.entities(encoded, outputs["predictions"], outputs["path_log_probs"], ignored)
        windows = _joined(encoded, outputs)
        if strategy == AggregationStrategy.NONE:
            return [self._tokens(window, ignored) for window in windows]
        self._warn_of_words(strategy)
        found = [self.postprocess([window], strategy, ignored) for window in windows]
        return [[entity | {"score": float(entity["score"])} for entity in of_text] for of_text in found]  # for JSON

    def encode(
        self, texts, is_split_into_words=False, delimiter=" ", tokenizer_params=None, offset_mapping=None
    ) -> tuple[dict[str, torch.Tensor], EncodedTexts]:
        """Return the inputs of the model, a row for each window of a text, and all that is known of the windows."""
        max_length, stride = None, (tokenizer_params or {}).get("stride")
        if stride is None:
            if reads_whole_texts(self.model):
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
        if offset_mapping is not None:
            if [len(row) for row in encoded.offsets] != [len(offset_mapping)]:
                raise ValueError(
                    f"offset_mapping has {len(offset_mapping)} rows: give one for each of the "
                    f"{sum(map(len, encoded.offsets))} tokens of a text that is read in one window"
                )
            encoded.offsets = [offset_mapping]
        return {name: torch.from_numpy(matrix(rows)) for name, rows in encoded.inputs.items()}, encoded

    def entities(
        self,
        encoded: EncodedTexts,
        predictions: torch.Tensor,
        log_probs: torch.Tensor,
        ignored: Collection[str] = ("O",),
    ) -> list[list[dict[str, Any]]]:
        """Return the entities of each text.

        Args:
            encoded: the windows of the texts, from `encode`.
            predictions: (windows, S), the ids of the labels of their tokens; -100 for tokens without a label.
            log_probs: (windows, S, 3), see `LinearChainCRF.posterior`.
            ignored: types of entities to leave out.
        """
        tags, probabilities = predictions.numpy(), log_probs.double().numpy()
        tagged = own_token_mask(encoded.special_tokens_mask, encoded.text_ids, encoded.stride) & (tags != IGNORED)
        text_ids = np.array(encoded.text_ids)[tagged.nonzero()[0]]
        pairs = chain.from_iterable(encoded.offsets)
        offsets = np.fromiter(chain.from_iterable(pairs), np.int64, 2 * tagged.size).reshape(*tagged.shape, 2)
        labels = self.model.label_names()
        return entities_of_batch(
            encoded.texts, text_ids, offsets[tagged], tags[tagged], probabilities[tagged], labels, ignored
        )

    def _forward(self, model_inputs, **options):
        return {**model_inputs, **self.model(**model_inputs, **options)}

    def _warn_of_words(self, strategy: AggregationStrategy) -> None:
        """Warn, once, that entities will consist of whole words."""
        if not self._warned_of_words:
            self._warned_of_words = True
            logger.warning(
                "aggregation_strategy=%r gives all characters between two spaces one tag, so that entities include the "
                "particles and punctuation of their words (`손흥민은`): use 'simple' for exact entities",
                strategy.value,
            )

    def _tokens(self, window: dict, ignored: Collection[str]) -> list[dict[str, Any]]:
        """Return the tokens of a text."""
        text, (offsets,) = window["sentence"], window["offset_mapping"]
        columns = ("input_ids", "predictions", "path_log_probs", "special_tokens_mask")
        token_ids, predictions, log_probs, special = (window[name][0].tolist() for name in columns)
        tokens, labels = self.tokenizer.convert_ids_to_tokens(token_ids), self.model.config.id2label
        return [
            {
                "entity": labels[tag],
                "score": math.exp(log_probs[i][0]),
                "index": i,
                "word": text[slice(*offsets[i])] if tokens[i] == self.tokenizer.unk_token else tokens[i],
                "start": offsets[i][0],
                "end": offsets[i][1],
            }
            for i, tag in enumerate(predictions)
            # The chain of some models has special tokens, which have tags but no place in the text.
            if tag != IGNORED and not special[i] and labels[tag] not in ignored
        ]


def _tag_in_autocast(tag: Callable[[list], list], dtype: torch.dtype, texts: list) -> list:
    """Return the results of texts in the autocast of the thread that asks for them."""
    with torch.autocast("cpu", dtype, cache_enabled=False):
        return tag(texts)


def _tag_words(tag: Callable[[list], list], delimiter: str, texts: list[Sequence[str]]) -> list[list[str]]:
    """Return the tags of the words of texts, of which `tag` returns the entities."""
    return [tags_of_words(words, found, delimiter) for words, found in zip(texts, tag(texts), strict=True)]


def reads_whole_texts(model: nn.Module) -> bool:
    """Return whether the model is a BiLSTM, which reads sequences of any length, and not an encoder."""
    return getattr(model.config, "max_position_embeddings", 0) is None


def default_workers(model: nn.Module, is_single: bool) -> int:
    """Return the number of threads that run batches, or a single batch; 0: PyTorch's own threads share operations.

    These wait for each other many times in a batch, and so for any other process that wants their CPU. They only pay
    for the large operations of an encoder, of which few batches at a time also need less memory.
    """
    threads = torch.get_num_threads()
    if model.device.type != "cpu" or threads == 1:
        return 0
    workers = min(threads, usable_cpus())
    return workers if reads_whole_texts(model) or (not is_single and workers <= ENCODER_BATCHES) else 0


def use_one_thread_each(pool: ThreadPoolExecutor, workers: int) -> None:
    """Let PyTorch use one thread in each of the new threads of `pool`.

    A thread takes its number from the setting of the process when it first runs a large operation.
    """
    with lock_of_process("threads of PyTorch"):
        threads, started = torch.get_num_threads(), Barrier(workers + 1)
        torch.set_num_threads(1)
        try:
            for _ in range(workers):
                pool.submit(lambda: (torch.ones(2**17).add_(1), started.wait()))
            started.wait()
        except BaseException:  # a thread cannot start, or somebody interrupts: the others must not wait for ever
            started.abort()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            torch.set_num_threads(threads)


class _SortedByLength:
    """The results of `tag` for batches of texts of similar length, in the order of `inputs`, which `check` checks."""

    def __init__(
        self, inputs: Any, batch_size: int, check: Callable[[Any, str], None], tag: Callable[[list], list], workers: int
    ) -> None:
        self.inputs, self.batch_size, self.check, self.tag, self.workers = inputs, batch_size, check, tag, workers
        self.read_ahead = batch_size * BATCHES_SORTED * max(1, workers // 4)  # with work for all until the end

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        inputs = self._checked()
        while texts := list(islice(inputs, self.read_ahead)):
            yield from map_by_length(
                lambda batches: ordered_map(self.tag, batches, self.workers, use_one_thread_each),
                texts,
                self.batch_size,
            )

    def _checked(self) -> Iterator:
        # A `Dataset` with indices has a length, and need not raise an IndexError behind it.
        inputs = self.inputs if isinstance(self.inputs, Iterable) else map(self.inputs.__getitem__, range(len(self)))
        for i, text in enumerate(inputs):
            self.check(text, f"text {i}")
            yield text


def _joined(encoded: EncodedTexts, outputs: dict[str, torch.Tensor]) -> Iterator[dict[str, Any]]:
    """Yield the outputs for each text, to which each of its windows contributes its own tokens."""
    outputs |= {"special_tokens_mask": torch.from_numpy(matrix(encoded.special_tokens_mask))}
    own = own_token_mask(encoded.special_tokens_mask, encoded.text_ids, encoded.stride)
    for text, group in groupby(range(len(own)), key=encoded.text_ids.__getitem__):
        rows = list(group)
        parts = [own[i].nonzero()[0].tolist() for i in rows]
        if len(rows) == 1:
            parts = [list(range(len(own[0])))]
        else:
            parts[0] = [*range(parts[0][0]), *parts[0]]  # with [CLS], so that indices are those of a single window
        offsets = [encoded.offsets[i][at] for i, part in zip(rows, parts, strict=True) for at in part]
        columns = {
            name: torch.cat([values[i, part] for i, part in zip(rows, parts, strict=True)])[None]
            for name, values in outputs.items()
        }
        yield {"sentence": encoded.texts[text], "offset_mapping": [offsets], **columns}


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
