"""Launch `bilstm-crf convert` from a clone: python recipes/convert_checkpoint.py --help"""

import sys
from pathlib import Path

from bilstm_crf_hf.commands.__main__ import main

if __name__ == "__main__":
    main(["convert", *sys.argv[1:]], recipes=Path(__file__).parent)
