"""Launch the ONNX tagger, which needs no PyTorch: python recipes/onnx_inference.py DIR/model.onnx SENTENCE ..."""

import runpy
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":  # run the file alone: importing the package would import torch
    package = Path(find_spec("bilstm_crf_hf").origin).parent
    runpy.run_path(str(package / "inference" / "onnx_inference.py"))
