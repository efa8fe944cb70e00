"""Export a tagger to ONNX: python recipes/export_onnx.py MODEL_DIR [--output_dir DIR] [--int8] [--file SENTENCES]

The graph takes `input_ids` and `attention_mask` of any batch and length, and gives `predictions`, the label ids of the
best paths, -100 outside of them. It is checked against PyTorch before anything is kept. recipes/onnx_inference.py runs
it without torch.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxscript import FLOAT, INT64, opset20 as op, script
from onnxscript.onnx_opset import opset20
from onnxscript.values import TracedOnnxFunction
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bilstm_crf_hf import BiLSTMCRFForTokenClassification
