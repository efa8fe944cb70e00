"""Launch `bilstm-crf distill-classifier` from a clone: python recipes/distill_classifier.py --help"""

import sys
from pathlib import Path

from bilstm_crf_hf.commands.__main__ import main

if __name__ == "__main__":
    main(["distill-classifier", *sys.argv[1:]], recipes=Path(__file__).parent)
