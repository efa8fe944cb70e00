"""Launch `bilstm-crf train-embeddings` from a clone: python recipes/train_embeddings.py --help"""

import sys
from pathlib import Path

from bilstm_crf_hf.commands.__main__ import main

if __name__ == "__main__":
    main(["train-embeddings", *sys.argv[1:]], recipes=Path(__file__).parent)
