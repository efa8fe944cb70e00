"""Launch `bilstm-crf export-onnx` from a clone: python recipes/export_onnx.py --help"""

import sys
from pathlib import Path

from bilstm_crf_hf.commands.__main__ import main

if __name__ == "__main__":
    main(["export-onnx", *sys.argv[1:]], recipes=Path(__file__).parent)
