"""Classifiers and data of six emotions that tests share."""

from pathlib import Path

import torch

from bilstm_crf_hf import BiLSTMForSequenceClassification
from bilstm_crf_hf.evaluation.tasks import label_maps

ROOT = Path(__file__).parents[1]
EMOTION = {split: ROOT / "recipes" / "data" / "emotion" / f"{split}.tsv" for split in ("train", "validation")}
FILES = [argument for split, path in EMOTION.items() for argument in (f"--{split}_file", str(path))]
SMALL = {"embedding_size": 16, "hidden_size": 24, "ngram_buckets": 256, "ngram_embedding_size": 8}


def new_classifier(tokenizer, labels=("부정", "긍정"), seed=0, **config) -> BiLSTMForSequenceClassification:
    """Create an untrained classifier."""
    torch.manual_seed(seed)
    return BiLSTMForSequenceClassification.from_tokenizer(tokenizer, **label_maps(labels), **(SMALL | config)).eval()
