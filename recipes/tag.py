"""Launch `bilstm-crf tag` from a clone: python recipes/tag.py --help"""

from bilstm_crf_hf.commands.__main__ import launch

if __name__ == "__main__":
    launch(__file__)
