"""Launch `bilstm-crf convert` from a clone: python recipes/convert_checkpoint.py --help"""

from bilstm_crf_hf.commands.__main__ import launch

if __name__ == "__main__":
    launch(__file__)
