"""Launch `bilstm-crf distill` from a clone: python recipes/distill.py --help"""

import sys
from pathlib import Path

from bilstm_crf_hf.commands.__main__ import main

if __name__ == "__main__":
    main(["distill", *sys.argv[1:]], recipes=Path(__file__).parent)
