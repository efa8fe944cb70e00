"""Launch `bilstm-crf distill-classifier` from a clone: python recipes/distill_classifier.py --help"""

from bilstm_crf_hf.commands.__main__ import launch

if __name__ == "__main__":
    launch(__file__)
