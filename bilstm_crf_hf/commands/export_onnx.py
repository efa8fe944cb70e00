"""Export a tagger to ONNX: python recipes/export_onnx.py MODEL_DIR [--output_dir DIR] [--int8] [--file SENTENCES]

Writes model.onnx, tokenizer.json and config.json, all that recipes/onnx_inference.py needs; beside a tagger that reads
morphemes, also the code that has Kiwi find them. The best paths of the graph are compared with those of PyTorch on real
sentences first; nothing is written if any differs. With --int8 there is also model_int8.onnx, whose weights are
quantised; how many paths that changes is said, and what becomes of F1.
"""

import argparse
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

import bilstm_crf_hf

from .. import BiLSTMCRFForTokenClassification
from ..alignment import IGNORED
from ..data.collation import TaggingCollator
from ..data.encoding import EncodedCorpus
from ..data.ner import load_ner_datasets
from ..evaluation.metrics import EntityScorer
from ..inference.onnx import export_onnx
from . import sample_files

BATCH_SIZE = 32
CODE = ("morphemes.py", "alignment.py")
"""Files of the package that find morphemes, and need nothing else of it."""


def best_paths(run: Callable[[dict[str, np.ndarray]], np.ndarray], corpus: EncodedCorpus, tokenizer) -> np.ndarray:
    """What `run` finds for each row of `corpus`, in batches, -100 behind the end of a row."""
    rows, collate = list(corpus.inputs.remove_columns("labels")), TaggingCollator(tokenizer)
    found = np.full((len(rows), max(len(row["input_ids"]) for row in rows)), IGNORED)
    for start in range(0, len(rows), BATCH_SIZE):
        batch = collate(rows[start : start + BATCH_SIZE])
        paths = run({name: values.numpy() for name, values in batch.items()})
        found[start : start + BATCH_SIZE, : paths.shape[1]] = paths
    return found


def of_pytorch(model: BiLSTMCRFForTokenClassification) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    @torch.inference_mode()
    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        return model(**{name: torch.from_numpy(value) for name, value in batch.items()}).predictions.numpy()

    return run


def of_onnx(path: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    return lambda batch: session.run(None, batch)[0]


def f1(corpus: EncodedCorpus, paths: np.ndarray) -> float:
    gold = np.full_like(paths, IGNORED)
    for row, labels in zip(gold, corpus.inputs["labels"]):
        row[: len(labels)] = labels
    return EntityScorer(corpus)(EvalPrediction(paths, gold))["f1"]


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a trained tagger, or its name on the Hub")
    parser.add_argument("--output_dir", type=Path, help="default: the folder `onnx` in the model's")
    parser.add_argument("--int8", action="store_true", help="also write a graph with quantised weights")
    sample = sample_files("ner", "txt", recipes).get("validation")
    parser.add_argument(
        "--file", default=sample, required=sample is None, help="tagged sentences to compare on, in any format of `ner`"
    )
    arguments = parser.parse_args(argv)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)

    model = BiLSTMCRFForTokenClassification.from_pretrained(arguments.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, trust_remote_code=False)
    data = load_ner_datasets(data_files={"test": str(arguments.file)})["test"]
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    corpus = EncodedCorpus(data, tokenizer, labels, morphemes=model.config.morphemes)
    expected = best_paths(of_pytorch(model), corpus, tokenizer)
    output_dir = arguments.output_dir or Path(arguments.model, "onnx")
    with tempfile.TemporaryDirectory() as folder:
        plain, int8 = Path(folder, "model.onnx"), Path(folder, "model_int8.onnx")
        export_onnx(model, plain)
        equal = (best_paths(of_onnx(plain), corpus, tokenizer) == expected).all(1)
        if not equal.all():
            raise RuntimeError(f"only {equal.mean():.2%} of {len(equal)} best paths are PyTorch's: nothing is written")
        print(f"model.onnx: all of {len(equal)} best paths are PyTorch's, F1 {f1(corpus, expected):.4f}")
        if arguments.int8:
            logging.getLogger().setLevel(logging.ERROR)  # of what is not quantised, such as Viterbi's scores
            quantize_dynamic(plain, int8, weight_type=QuantType.QInt8)
            close = best_paths(of_onnx(int8), corpus, tokenizer)
            share = (close == expected).all(1).mean()
            print(f"model_int8.onnx: {share:.2%} of the best paths are PyTorch's, F1 {f1(corpus, close):.4f}")
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for name in CODE if model.config.morphemes else ():
            shutil.copy(Path(bilstm_crf_hf.__file__).with_name(name), folder)
        output_dir.mkdir(parents=True, exist_ok=True)
        for name in (plain.name, int8.name, "tokenizer.json", "config.json", *CODE):
            if Path(folder, name).exists():
                shutil.copy(Path(folder, name), output_dir / name)
                print(f"{output_dir / name}: {(output_dir / name).stat().st_size / 1e6:.1f} MB")
