"""Launch `bilstm-crf demo` from a clone: python recipes/demo.py --help"""

from bilstm_crf_hf.commands.__main__ import launch

if __name__ == "__main__":
    launch(__file__)
