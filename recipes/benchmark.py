"""Launch `bilstm-crf benchmark` from a clone: python recipes/benchmark.py --help"""

from bilstm_crf_hf.commands.__main__ import launch

if __name__ == "__main__":
    launch(__file__)
