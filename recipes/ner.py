"""Launch `bilstm-crf ner` from a clone: python recipes/ner.py --help"""

import sys
from pathlib import Path

from bilstm_crf_hf.commands.__main__ import main

if __name__ == "__main__":
    main(["ner", *sys.argv[1:]], recipes=Path(__file__).parent)
