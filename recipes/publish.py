"""Launch `bilstm-crf publish` from a clone: python recipes/publish.py --help"""

import sys
from pathlib import Path

from bilstm_crf_hf.commands.__main__ import main

if __name__ == "__main__":
    main(["publish", *sys.argv[1:]], recipes=Path(__file__).parent)
