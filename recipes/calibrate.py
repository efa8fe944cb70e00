"""Launch `bilstm-crf calibrate` from a clone: python recipes/calibrate.py --help"""

from bilstm_crf_hf.commands.__main__ import launch

if __name__ == "__main__":
    launch(__file__)
