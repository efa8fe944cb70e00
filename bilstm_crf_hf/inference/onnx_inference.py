"""Taggers and text classifiers in onnxruntime, without PyTorch: python onnx_inference.py MODEL SENTENCE ...

MODEL is a graph of `bilstm-crf export-onnx`, or its folder, whose `model.onnx` is read. The command copies this file
and those that it imports into the folder. `pip install onnxruntime tokenizers numpy` is all that it needs; a model that
reads morphemes also wants `kiwipiepy`. In Python, from that folder:

    from onnx_inference import OnnxPipeline
    tagger = OnnxPipeline("model_int8.onnx")
    tagger("춘천에서")  # [{'entity_group': 'LC', 'score': 0.99255, 'word': '춘천', 'start': 0, 'end': 2}]
"""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import partial
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import tokenizers
from numpy import ndarray
from tokenizers import Encoding, Tokenizer

if TYPE_CHECKING or not Path(__file__).with_name("alignment.py").is_file():
    from ..alignment import Span, render
    from ..batching import BATCHES_SORTED, map_by_length, matrix, own_token_mask
    from ..entities import entities_of_batch, tags_of_words
    from ..processing_bilstm_crf import TEXT_INPUTS, check_are_words, check_batches, check_is_text
    from ..recursions import decode
    from ..threads import ordered_map, usable_cpus
else:  # in the folder of a graph, the files beside this one form a package, another one in each folder
    folder = str(Path(__file__).resolve().parent)
    name = f"exported_{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [folder]
    alignment, batching, entities, processing, recursions, threads = (
        import_module(f"{name}.{each}")
        for each in ("alignment", "batching", "entities", "processing_bilstm_crf", "recursions", "threads")
    )
    BATCHES_SORTED, map_by_length = batching.BATCHES_SORTED, batching.map_by_length
    matrix, own_token_mask = batching.matrix, batching.own_token_mask
    Span, render = alignment.Span, alignment.render
    entities_of_batch, tags_of_words = entities.entities_of_batch, entities.tags_of_words
    TEXT_INPUTS, check_batches = processing.TEXT_INPUTS, processing.check_batches
    check_are_words, check_is_text = processing.check_are_words, processing.check_is_text
    decode, ordered_map, usable_cpus = recursions.decode, threads.ordered_map, threads.usable_cpus

logger = logging.getLogger(__name__)

BATCH_SIZE = 128
"""Number of texts that are read at a time by default."""

GRAPH_SIZE = 16
"""Number of texts, or windows of texts, for the graph at a time. States of more of them leave the caches of a CPU."""


class OnnxPipeline:
    """A tagger or text classifier in onnxruntime, whose results are those of the pipeline of the model.

    Args:
        model: graph, or folder with a `model.onnx`; `tokenizer.json` lies beside it.

    Attributes:
        task: "token-classification" or "text-classification".
        settings: what the exporter has written to the metadata of the graph.
        text_inputs: the inputs that are computed from the texts, with their libraries and versions.
        versions: the versions of the libraries that run the model.

    Raises:
        FileNotFoundError: if there is no graph.
        ValueError: if the graph or its tokenizer is damaged, or of an earlier version of the exporter.
    """

    versions = {"onnxruntime": onnxruntime.__version__, "tokenizers": tokenizers.__version__}

    def __init__(self, model: str | Path) -> None:
        self.path = Path(model, "model.onnx") if Path(model).is_dir() else Path(model)
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no graph {self.path}: write it with `bilstm-crf export-onnx`")
        try:
            self._load()
        except Exception as error:  # onnxruntime and tokenizers have types of their own
            problem = f"{self.path}, or tokenizer.json beside it, cannot be read ({type(error).__name__}: {error})"
            raise ValueError(f"{problem}: export the model again with `bilstm-crf export-onnx`") from error
        self.text_inputs: dict[str, str] = {}
        self.unknown = TEXT_INPUTS.keys() & {each.name for each in self.session.get_inputs()}
        for name in list(self.unknown):
            library = TEXT_INPUTS[name].library
            if version := TEXT_INPUTS[name].installed():
                self.unknown.remove(name)
                self.text_inputs[name] = f"{library} {version}"
            else:
                logger.warning("The model reads %s: pip install %s. Without them it tags less well.", name, library)

    def _load(self) -> None:
        """Read the graph with its settings, and the tokenizer."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # threads work on batches instead
        options.log_severity_level = 3  # a warning says that the input `decodes` has a default
        self.session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        self.settings = json.loads(self.session.get_modelmeta().custom_metadata_map["settings"])
        self.task, self.labels = self.settings["task"], self.settings["labels"]
        self.special_token_ids = self.settings["special_token_ids"]
        crf = self.settings["crf"] if self.task == "token-classification" else {}
        self.crf: dict[str, Any] = {name: np.array(value) for name, value in crf.items()}
        self.tokenizer = Tokenizer.from_file(str(self.path.with_name("tokenizer.json")))
        self.tokenizer.enable_padding(pad_id=self.settings["pad_token_id"])
        self.tokenizer.no_truncation()  # the limit of the training, which the file may contain
        if limit := self.settings["max_length"]:
            self.tokenizer.enable_truncation(limit, stride=self.settings["stride"])

    def __call__(
        self,
        texts: str | Iterable[Any],
        batch_size: int = BATCH_SIZE,
        num_workers: int | None = None,
        is_split_into_words: bool = False,
        delimiter: str = " ",
        return_tags: bool = False,
    ) -> Any:
        """Return the result for a text, or those for each of many, in an iterator unless `texts` is a list or tuple.

        Args:
            texts: a text, or many; with `is_split_into_words`, the words of one or many.
            batch_size: number of texts that are read at a time.
            num_workers: number of threads that read batches; 0 or 1: none beside the calling one. Default: as many as
                the process may use.
            is_split_into_words: whether a text is a list of words, which `delimiter` joins.
            return_tags: whether the result is a BIO tag for each word in place of entities, see [`tags_of_words`].

        Raises:
            ValueError: if `texts` are no texts; with the index of a text, if it cannot be read; if `batch_size` is not
                positive, or `num_workers` negative; if `return_tags` is given without words, or words to a classifier.
        """
        check_batches(batch_size, num_workers)
        is_tagger = self.task == "token-classification"
        read: Callable[[list], list] = self._read
        check: Callable[[Any, str], None] = check_is_text
        if return_tags and not is_split_into_words:
            raise ValueError("return_tags is for words: give lists of words with is_split_into_words=True")
        if is_split_into_words and not is_tagger:
            raise ValueError("is_split_into_words is for taggers: give texts")
        if is_split_into_words:
            read, check = partial(self._read_words, delimiter, return_tags), check_are_words
            if isinstance(texts, (list, tuple)) and texts and all(isinstance(word, str) for word in texts):
                texts = [texts]
        elif isinstance(texts, str):
            (result,) = self._results([texts], 1, 1, read, check)
            return result if is_tagger else [result]
        if isinstance(texts, (str, bytes, Mapping, Set)) or not isinstance(texts, Iterable):
            expected = (
                "a list of words, or of such lists" if is_split_into_words else "a text, or a list or stream of texts"
            )
            raise ValueError(f"the input is of the type {type(texts).__name__}: give {expected}")
        workers = usable_cpus() if num_workers is None else num_workers
        results = self._results(texts, batch_size, workers, read, check)
        return list(results) if isinstance(texts, (list, tuple)) else results

    def _results(
        self,
        texts: Iterable[Any],
        batch_size: int,
        workers: int,
        read: Callable[[list], list],
        check: Callable[[Any, str], None],
    ) -> Iterator[Any]:
        """Yield the results of `read` for texts in their order; threads work on batches of similar length."""
        checked = _checked(texts, check)
        if workers > 1:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # further threads would only be in the way

        def run(batches: list[list]) -> Iterator[list]:
            return ordered_map(read, batches, workers if min(workers, len(batches)) > 1 else 0)

        while ahead := list(islice(checked, BATCHES_SORTED * batch_size * max(1, workers // 4))):
            yield from map_by_length(run, ahead, batch_size)

    def _read(self, texts: list[str]) -> list:
        """Return the results of a batch."""
        encodings = self.tokenizer.encode_batch(texts)
        read = self._entities if self.task == "token-classification" else self._labels
        return read(texts, encodings)

    def _read_words(self, delimiter: str, return_tags: bool, texts: list[list[str]]) -> list:
        """Return the entities of a batch of texts in words, or the tags of the words."""
        found = self._read([delimiter.join(words) for words in texts])
        if not return_tags:
            return found
        return [tags_of_words(words, entities, delimiter) for words, entities in zip(texts, found)]

    def _inputs(self, texts: list[str], windows: list[Encoding]) -> dict[str, ndarray]:
        """Return the inputs of the graph for windows, each with its text."""
        inputs = {"input_ids": matrix([each.ids for each in windows])}
        inputs["attention_mask"] = matrix([each.attention_mask for each in windows])
        for name in self.text_inputs:
            inputs[name] = matrix(TEXT_INPUTS[name].compute(texts, [each.offsets for each in windows]))
        return inputs | {name: np.zeros_like(inputs["input_ids"]) for name in self.unknown}

    def _run(self, output: str, inputs: dict[str, ndarray], axis: int, **options: ndarray) -> ndarray:
        """Return an output of the graph, in which windows stand side by side along an axis."""
        parts = [slice(at, at + GRAPH_SIZE) for at in range(0, len(inputs["input_ids"]), GRAPH_SIZE)]
        feeds = [options | {name: rows[part] for name, rows in inputs.items()} for part in parts]
        return np.concatenate([self.session.run([output], feed)[0] for feed in feeds], axis)

    def _entities(self, texts: list[str], encodings: list[Encoding]) -> list[list[dict[str, Any]]]:
        """Return the entities of each text, whose windows the encodings hold."""
        windows = [window for first in encodings for window in (first, *first.overflowing)]
        text_ids = np.repeat(np.arange(len(texts)), [1 + len(first.overflowing) for first in encodings])
        inputs = self._inputs([texts[i] for i in text_ids], windows)
        # The graph need not find the Viterbi path: `decode` also finds the probabilities.
        emissions = self._run("emissions", inputs, 1, decodes=np.array(False))  # (T, B, K)
        in_chain = (inputs["attention_mask"] != 0) & ~np.isin(inputs["input_ids"], self.special_token_ids)  # (B, S)
        begins = self._units(inputs["input_ids"], in_chain)  # (B, S)
        lengths = begins.sum(1)
        paths, log_probs = decode(emissions[: max(1, lengths.max())], lengths, **self.crf)
        inside = np.arange(len(paths)) < lengths[:, None]  # (B, T)
        tags = paths.T[inside]
        added = [window.special_tokens_mask for window in windows]
        kept = own_token_mask(added, text_ids, self.settings.get("stride"))[begins] & (tags >= 0)
        offsets = np.fromiter(chain.from_iterable(chain.from_iterable(each.offsets for each in windows)), np.int64)
        offsets = offsets.reshape(*in_chain.shape, 2)[in_chain]
        first = begins[in_chain].nonzero()[0]  # the first token of each unit; its range ends with that of the last one
        offsets = np.stack([offsets[first, 0], np.maximum.reduceat(offsets[:, 1], first)], 1) if len(first) else offsets
        return entities_of_batch(
            texts,
            np.repeat(text_ids, lengths)[kept],
            offsets[kept],
            tags[kept],
            log_probs.transpose(1, 0, 2)[inside][kept],
            self.labels,
        )

    def _units(self, ids: ndarray, in_chain: ndarray) -> ndarray:
        """Return which tokens, (B, S), begin a unit of the chain: all of it, or the first ones of words."""
        if (starts := self.settings.get("word_start_ids")) is None:
            return in_chain
        follows = np.pad(in_chain, ((0, 0), (1, 0)))[:, :-1]  # whether the token before is in the chain
        return in_chain & (np.isin(ids, starts) | ~follows)

    def _labels(self, texts: list[str], encodings: list[Encoding]) -> list[dict[str, Any]]:
        """Return the most probable label of each text, of which encodings may hold the beginning."""
        scores = self._run("logits", self._inputs(texts, encodings), 0)  # (B, K)
        if self.settings["activation"] == "softmax":
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
        elif self.settings["activation"] == "sigmoid":
            scores = 1 / (1 + np.exp(-scores))
        return [{"label": self.labels[row.argmax()], "score": row.max().item()} for row in scores]


def _checked(texts: Iterable[Any], check: Callable[[Any, str], None]) -> Iterator[Any]:
    """Yield texts; let `check` raise ValueError with the index of what cannot be read."""
    for i, text in enumerate(texts):
        check(text, f"text {i}")
        yield text


def render_result(text: str, result: Any) -> str:
    """Return a text with its entities marked, `<춘천:LC>에서`, or with its label and the score of it in front."""
    if isinstance(result, dict):
        return f"{result['label']}\t{result['score']:.4f}\t{text}"
    return render(text, [Span(entity["start"], entity["end"], entity["entity_group"]) for entity in result])


if __name__ == "__main__":
    model, *texts = sys.argv[1:]
    for text, result in zip(texts, OnnxPipeline(model)(texts)):
        print(render_result(text, result))
