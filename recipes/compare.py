"""Launch `bilstm-crf compare` from a clone: python recipes/compare.py --help"""

import sys
from pathlib import Path

from bilstm_crf_hf.commands.__main__ import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]], recipes=Path(__file__).parent)
