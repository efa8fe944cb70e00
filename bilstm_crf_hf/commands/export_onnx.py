"""Export a model to ONNX: bilstm-crf export-onnx MODEL [--output_dir DIR] [--int8] [--file FILE]

MODEL is a tagger or text classifier of this package, on a BiLSTM or an encoder. Writes model.onnx, tokenizer.json,
config.json, and onnx_inference.py with the code that it needs, which runs the graph without PyTorch and this package.
Its results on real texts are compared with those of PyTorch first, entities with their places and scores or labels with
theirs, and the Viterbi paths of the graph; if any differs, nothing is written. With --int8 there is also
model_int8.onnx, with weights and embeddings in int8; the share of equal results is printed with the score of both.
"""

import ast
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from ..alignment import Span
from ..data.classification import class_names, load_classification_datasets
from ..data.encoding import gold_spans
from ..data.ner import labels_of, load_ner_datasets
from ..evaluation.metrics import entity_scores
from ..evaluation.tasks import TAGGING
from ..inference.onnx import CLASSIFIERS, TAGGERS, export_onnx, quantise
from ..inference.onnx_inference import OnnxPipeline
from ..inference.predictors import load_pipeline
from ..models import CHOICE, model_path
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from ..utils.files import locked, write_atomically
from . import new_parser, sample_files

PACKAGE = Path(__file__).parents[1]

TOLERANCE = 1e-4
"""Largest difference between the scores of PyTorch and of the graph."""

BATCH_SIZE = 32
"""Number of texts of a batch when paths are compared."""


class Examples:
    """Texts with their gold entities or labels, from a file in any format of the training of the model."""

    def __init__(self, task: str, labels: list[str], file: str) -> None:
        self.labels = labels
        if task == TAGGING.pipeline_tag:
            data = load_ner_datasets(data_files={"test": file})["test"]
            self.gold: list = [gold_spans(row["text"], row["tags"], labels_of(data)) for row in data]
        else:
            data = load_classification_datasets(data_files={"test": file})["test"]
            names = class_names(data)
            # A file without names has the ids of the labels.
            self.gold = [names[i] if set(names) <= set(labels) else labels[i] for i in data["label"]]
        self.texts = list(data["text"])

    def score(self, results: list) -> str:
        """Return the F1 of entities or the accuracy of labels, in words."""
        if isinstance(results[0], dict):
            right = sum(found["label"] == label for found, label in zip(results, self.gold, strict=True))
            return f"accuracy {right / len(results):.4f}"
        spans = [[Span(e["start"], e["end"], e["entity_group"]) for e in found] for found in results]
        return f"F1 {entity_scores(self.texts, self.gold, spans, self.labels)['f1']:.4f}"


def same(results: list, expected: list, tolerance: float) -> np.ndarray:
    """Return for each text whether its entities or its label are the expected ones, with scores within a tolerance."""
    return np.array([_all_close(*pair, tolerance) for pair in zip(results, expected, strict=True)])


def _all_close(found: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, list):
        return len(found) == len(expected) and all(_all_close(*pair, tolerance) for pair in zip(found, expected))
    others = found.keys() - {"score"}
    return (
        found.keys() == expected.keys()
        and all(found[name] == expected[name] for name in others)
        and abs(found["score"] - expected["score"]) <= tolerance
    )


def same_paths(pipe: Pipeline, runner: OnnxPipeline, texts: list[str]) -> bool:
    """Return whether the Viterbi paths of the graph are those of PyTorch."""
    for start in range(0, len(texts), BATCH_SIZE):
        inputs, _ = pipe.encode(texts[start : start + BATCH_SIZE])
        with torch.inference_mode():
            expected = pipe.model(**inputs).predictions.numpy()
        arrays = {name: values.numpy() for name, values in inputs.items()}
        if not np.array_equal(runner.session.run(["predictions"], arrays)[0], expected):
            return False
    return True


def write_graphs(pipe: Pipeline, examples: Examples, folder: Path, int8: bool) -> None:
    """Write the graph, and the quantised graph on request, to a folder with the tokenizer.

    Raises:
        RuntimeError: if a result of the graph differs from that of PyTorch.
    """
    texts, expected = examples.texts, pipe(examples.texts)
    plain, quantised = folder / "model.onnx", folder / "model_int8.onnx"
    export_onnx(pipe.model, plain, pipe.tokenizer)
    runner = OnnxPipeline(plain)
    results = runner(texts)
    equal = same(results, expected, TOLERANCE)
    if not equal.all():
        raise RuntimeError(f"only {equal.mean():.2%} of {len(equal)} results equal PyTorch's: nothing is written")
    if isinstance(pipe.model, TAGGERS) and not same_paths(pipe, runner, texts):
        raise RuntimeError("the paths of the graph differ from PyTorch's: nothing is written")
    print(f"model.onnx: all of {len(equal)} results equal PyTorch's, {examples.score(results)}")
    if int8:
        quantise(plain, quantised)
        results = OnnxPipeline(quantised)(texts)
        share = same(results, expected, 1).mean()
        print(f"model_int8.onnx: {share:.2%} of the results equal PyTorch's, {examples.score(results)}")


def code_of(script: Path) -> list[Path]:
    """Return a script of the package and the files of the package's root that it needs."""
    files = [script]
    for file in files:  # which grows
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            imported = PACKAGE / f"{node.module}.py" if isinstance(node, ast.ImportFrom) and node.level else script
            if imported not in files and imported.is_file():
                files.append(imported)
    return files


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Remove the warnings of torch.onnx of what is not installed, and those of onnxruntime of what is not quantised.

    These are of the root logger itself: a filter, unlike its level, leaves the loggers below it alone.
    """
    root, exporter = logging.getLogger(), logging.getLogger("torch.onnx")
    level = exporter.level
    root.addFilter(_is_error)
    exporter.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.removeFilter(_is_error)
        exporter.setLevel(level)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    parser = new_parser(__doc__)
    parser.add_argument("model", help=f"tagger or text classifier: {CHOICE}")
    parser.add_argument(
        "--output_dir", type=Path, help="folder of the graphs; default: `onnx` in that of the model, or in `outputs`"
    )
    parser.add_argument("--int8", action="store_true", help="also write a graph with weights and embeddings in int8")
    parser.add_argument("--file", help="labelled texts to compare on, in any format of `ner` or `classify`")
    arguments = parser.parse_args(argv)

    source = model_path(arguments.model)
    output_dir = arguments.output_dir or Path(source if source == arguments.model else "outputs", "onnx")
    with _without_warnings(), locked(output_dir), tempfile.TemporaryDirectory() as folder:
        pipe = load_pipeline(arguments.model, device="cpu")
        if not isinstance(pipe.model, (*TAGGERS, *CLASSIFIERS)):
            raise ValueError(f"{arguments.model}: {type(pipe.model).__name__} is not exported here: use `optimum`")
        BiLSTMCRFProcessor(pipe.tokenizer, pipe.model.config)  # an ImportError if a library is missing to compare with
        sample = ("ner", "txt") if pipe.task == TAGGING.pipeline_tag else ("sentiment", "tsv")
        file = arguments.file or sample_files(*sample, recipes).get("validation")
        if file is None:
            parser.error("name labelled texts to compare on with --file")
        pipe.model.config.save_pretrained(folder)
        pipe.tokenizer.save_pretrained(folder)
        examples = Examples(pipe.task, pipe.model.label_names(), str(file))
        write_graphs(pipe, examples, Path(folder), arguments.int8)
        written = [*sorted(Path(folder).glob("*.onnx")), Path(folder, "tokenizer.json"), Path(folder, "config.json")]
        for path in (*written, *code_of(PACKAGE / "inference" / "onnx_inference.py")):
            with path.open("rb") as content, write_atomically(output_dir / path.name) as target:
                shutil.copyfileobj(content, target)
            print(f"{output_dir / path.name}: {path.stat().st_size / 1e6:.1f} MB")
