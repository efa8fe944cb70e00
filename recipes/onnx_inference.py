"""Launch the ONNX tagger, which needs no PyTorch: python recipes/onnx_inference.py DIR/model.onnx SENTENCE ..."""

import runpy
import sys
from importlib.util import find_spec
from types import ModuleType

if __name__ == "__main__":
    package = ModuleType("bilstm_crf_hf")  # importing the package itself would import torch
    package.__path__ = find_spec("bilstm_crf_hf").submodule_search_locations
    sys.modules["bilstm_crf_hf"] = package
    runpy.run_module("bilstm_crf_hf.inference.onnx_inference", run_name="__main__")
