"""Launch `bilstm-crf publish` from a clone: python recipes/publish.py --help"""

from bilstm_crf_hf.commands.__main__ import launch

if __name__ == "__main__":
    launch(__file__)
