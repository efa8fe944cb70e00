"""Export a tagger to ONNX: bilstm-crf export-onnx MODEL [--output_dir DIR] [--int8] [--file SENTENCES]

Writes model.onnx, tokenizer.json, config.json, and onnx_inference.py with the code that it needs, which tags without
PyTorch and this package. The Viterbi paths of the graph are compared with those of PyTorch on real sentences first; if
any differs, nothing is written. With --int8 there is also model_int8.onnx with quantised weights; the share of its
paths that equal PyTorch's and its F1 are printed.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoTokenizer, EvalPrediction

from .. import BiLSTMCRFForTokenClassification
from ..alignment import IGNORED
from ..data.collation import TaggingCollator
from ..data.encoding import EncodedCorpus
from ..data.ner import load_ner_datasets
from ..evaluation.metrics import EntityScorer
from ..inference.onnx import export_onnx
from ..models import CHOICE, model_path
from ..pipeline_bilstm_crf import check_finite
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from ..utils.files import locked, write_atomically
from . import new_parser, sample_files

BATCH_SIZE = 32
"""Number of sentences of a batch when paths are compared."""

PACKAGE = Path(__file__).parents[1]

SCRIPTS = (PACKAGE / "inference" / "onnx_inference.py", PACKAGE / "alignment.py")
"""Program that tags with a graph, and the code that turns tags of tokens into entities."""

CODE = (PACKAGE / "morphemes.py",)
"""Code that computes morphemes; beside `alignment`, it needs no other file of the package."""

Batch = dict[str, torch.Tensor]


def viterbi_paths(run: Callable[[Batch], np.ndarray], corpus: EncodedCorpus) -> np.ndarray:
    """Return the paths that `run` finds for the rows of `corpus`, in batches; -100 behind the end of a row."""
    rows, collate = list(corpus.inputs.remove_columns("labels")), TaggingCollator(corpus.processor.tokenizer)
    found = np.full((len(rows), max(len(row["input_ids"]) for row in rows)), IGNORED)
    for start in range(0, len(rows), BATCH_SIZE):
        batch = collate(rows[start : start + BATCH_SIZE])
        paths = run(batch)
        found[start : start + BATCH_SIZE, : paths.shape[1]] = paths
    return found


def run_onnx(path: Path) -> Callable[[Batch], np.ndarray]:
    """Return a function that runs the graph in a file."""
    session = onnxruntime.InferenceSession(path)
    return lambda batch: session.run(None, {name: values.numpy() for name, values in batch.items()})[0]


def f1(corpus: EncodedCorpus, paths: np.ndarray) -> float:
    """Return the F1 of entities of paths, against the labels of the rows."""
    gold = np.full_like(paths, IGNORED)
    for row, labels in zip(gold, corpus.inputs["labels"]):
        row[: len(labels)] = labels
    return EntityScorer(corpus)(EvalPrediction(paths, gold))["f1"]


def write_graphs(model: BiLSTMCRFForTokenClassification, corpus: EncodedCorpus, folder: Path, int8: bool) -> None:
    """Write the graph, and the quantised graph on request, to a folder.

    Raises:
        RuntimeError: if a path of the graph differs from that of PyTorch.
    """
    with torch.inference_mode():
        expected = viterbi_paths(lambda batch: model(**batch).predictions.numpy(), corpus)
    plain, quantised = folder / "model.onnx", folder / "model_int8.onnx"
    export_onnx(model, plain)
    equal = (viterbi_paths(run_onnx(plain), corpus) == expected).all(1)
    if not equal.all():
        raise RuntimeError(f"only {equal.mean():.2%} of {len(equal)} paths equal PyTorch's: nothing is written")
    print(f"model.onnx: all of {len(equal)} paths equal PyTorch's, F1 {f1(corpus, expected):.4f}")
    if int8:
        logging.getLogger().setLevel(logging.ERROR)  # warnings of parts that are not quantised, such as Viterbi
        quantize_dynamic(plain, quantised, weight_type=QuantType.QInt8)
        paths = viterbi_paths(run_onnx(quantised), corpus)
        share = (paths == expected).all(1).mean()
        print(f"model_int8.onnx: {share:.2%} of the paths equal PyTorch's, F1 {f1(corpus, paths):.4f}")


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    parser = new_parser(__doc__)
    parser.add_argument("model", help=f"tagger: {CHOICE}")
    parser.add_argument(
        "--output_dir", type=Path, help="folder of the graphs; default: `onnx` in that of the model, or in `outputs`"
    )
    parser.add_argument("--int8", action="store_true", help="also write a graph with quantised weights")
    sample = sample_files("ner", "txt", recipes).get("validation")
    parser.add_argument(
        "--file", default=sample, required=sample is None, help="tagged sentences to compare on, in any format of `ner`"
    )
    arguments = parser.parse_args(argv)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)

    source = model_path(arguments.model)
    output_dir = arguments.output_dir or Path(source if source == arguments.model else "outputs", "onnx")
    with locked(output_dir), tempfile.TemporaryDirectory() as folder:
        model = BiLSTMCRFForTokenClassification.from_pretrained(source).eval()
        check_finite(model)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        data = load_ner_datasets(data_files={"test": str(arguments.file)})["test"]
        labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
        corpus = EncodedCorpus(data, BiLSTMCRFProcessor(tokenizer, model.config), labels)
        write_graphs(model, corpus, Path(folder), arguments.int8)
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        written = [*sorted(Path(folder).glob("*.onnx")), Path(folder, "tokenizer.json"), Path(folder, "config.json")]
        for path in (*written, *SCRIPTS, *(CODE if model.config.read_morphemes else ())):
            with path.open("rb") as content, write_atomically(output_dir / path.name) as file:
                shutil.copyfileobj(content, file)
            print(f"{output_dir / path.name}: {path.stat().st_size / 1e6:.1f} MB")
