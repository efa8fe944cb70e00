"""Launch `bilstm-crf distill` from a clone: python recipes/distill.py --help"""

from bilstm_crf_hf.commands.__main__ import launch

if __name__ == "__main__":
    launch(__file__)
