"""Launch `bilstm-crf predict` from a clone: python recipes/predict.py --help"""

import sys
from pathlib import Path

from bilstm_crf_hf.commands.__main__ import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]], recipes=Path(__file__).parent)
