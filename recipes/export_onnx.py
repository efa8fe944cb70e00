"""Export a tagger to ONNX: python recipes/export_onnx.py MODEL_DIR [--output_dir DIR] [--int8] [--file SENTENCES]

Writes model.onnx, tokenizer.json and config.json, all that recipes/onnx_inference.py needs. The best paths of the graph
are compared with those of PyTorch on real sentences first; nothing is written if any differs. With --int8 there is also
model_int8.onnx, whose weights are quantised, and how many paths that changes is said.
"""

import argparse
import logging
import shutil
import tempfile
from pathlib import Path

import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoTokenizer

from bilstm_crf_hf import BiLSTMCRFForTokenClassification
from bilstm_crf_hf.corpora import load_ner_datasets
from bilstm_crf_hf.onnx_export import export_onnx

SAMPLE = Path(__file__).parent / "data" / "ner" / "validation.txt"
BATCH_SIZE = 32


def agreement(model: BiLSTMCRFForTokenClassification, tokenizer, path: Path, texts: list[str]) -> float:
    """The share of `texts` on which the graph at `path` finds the best path that `model` finds, in mixed batches."""
    session = onnxruntime.InferenceSession(path)
    equal = 0
    for start in range(0, len(texts), BATCH_SIZE):
        batch = tokenizer(
            texts[start : start + BATCH_SIZE], padding=True, return_token_type_ids=False, return_tensors="np"
        )
        (predictions,) = session.run(None, dict(batch))
        with torch.inference_mode():
            expected = model(**{name: torch.from_numpy(value) for name, value in batch.items()}).predictions.numpy()
        equal += int((predictions == expected).all(1).sum())
    return equal / len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a trained tagger, or its name on the Hub")
    parser.add_argument("--output_dir", type=Path, help="default: the folder `onnx` in the model's")
    parser.add_argument("--int8", action="store_true", help="also write a graph with quantised weights")
    parser.add_argument("--file", default=SAMPLE, help="sentences to compare with PyTorch on, in any format of ner.py")
    arguments = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)

    model = BiLSTMCRFForTokenClassification.from_pretrained(arguments.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, trust_remote_code=False)
    texts = list(load_ner_datasets(data_files={"test": str(arguments.file)})["test"]["text"])
    output_dir = arguments.output_dir or Path(arguments.model, "onnx")
    with tempfile.TemporaryDirectory() as folder:
        plain, int8 = Path(folder, "model.onnx"), Path(folder, "model_int8.onnx")
        export_onnx(model, plain)
        share = agreement(model, tokenizer, plain, texts)
        if share < 1:
            raise RuntimeError(f"only {share:.2%} of {len(texts)} best paths are PyTorch's: nothing is written")
        print(f"model.onnx: all of {len(texts)} best paths are PyTorch's")
        if arguments.int8:
            quantize_dynamic(plain, int8, weight_type=QuantType.QInt8)
            print(f"model_int8.onnx: {agreement(model, tokenizer, int8, texts):.2%} of the best paths are PyTorch's")
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        output_dir.mkdir(parents=True, exist_ok=True)
        for name in (plain.name, int8.name, "tokenizer.json", "config.json"):
            if Path(folder, name).exists():
                shutil.copy(Path(folder, name), output_dir / name)
                print(f"{output_dir / name}: {(output_dir / name).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
