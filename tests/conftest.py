"""Sentences, small taggers and another process that the tests share."""

import json
import os
import random
import signal
import time
from contextlib import contextmanager
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import pytest
import torch
from corpora import read_corpus
from transformers import DataCollatorForTokenClassification

from bilstm_crf_hf import BiLSTMCRFForTokenClassification
from bilstm_crf_hf.data.encoding import EncodedCorpus, best_labels
from bilstm_crf_hf.data.inline_marks import parse_inline
from bilstm_crf_hf.data.splits import SourceArguments
from bilstm_crf_hf.data.tokenization import build_character_tokenizer
from bilstm_crf_hf.evaluation.metrics import EntityScorer
from bilstm_crf_hf.evaluation.runs import save_run
from bilstm_crf_hf.morphemes import NUM_CLUSTERS, kiwi, morpheme_hash
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor
from bilstm_crf_hf.training.arguments import CardArguments, ModelArguments, TaggerTrainingArguments
from bilstm_crf_hf.training.trainer import TaggerTrainer
from bilstm_crf_hf.utils.files import locked

LABELS = ["B-DT", "I-DT", "B-LC", "I-LC", "B-PS", "I-PS", "O"]

# The --config_overrides of a model that trains at once.
TINY = json.dumps({"embedding_size": 8, "hidden_size": 8, "ngrams": [], "jamo_embedding_size": 0})

SENTENCES = [
    "<손흥민:PS>은 <1992년 7월 8일:DT> <춘천:LC>에서 태어났다.",
    "<김연아:PS>는 <지난해:DT> <서울:LC>로 돌아왔다.",
    "<부산:LC>에는 <3월 1일:DT>에 비가 왔다.",
    "<봉준호:PS> 감독이 <파리:LC>에 갔다.",
    "<어제:DT> <춘천:LC>에서 <김연아:PS>를 만났다.",
    "정말 재미있는 영화였다 ㅋㅋ",
    "<손흥민:PS>과 <봉준호:PS>는 <서울:LC>에 산다.",
    "<1443년:DT> <세종대왕:PS>이 글자를 만들었다.",
]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Keep encoded data sets out of the user's cache, also in the processes that tests start."""
    folder = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(folder))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        yield


@pytest.fixture
def write(tmp_path):
    """Write a file into the folder of the test, and return its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [parse_inline(sentence)[0] for sentence in SENTENCES]


@pytest.fixture(scope="session")
def tokenizer(texts):
    return build_character_tokenizer(texts)


@pytest.fixture(scope="session")
def corpus(tokenizer, tmp_path_factory) -> EncodedCorpus:
    path = tmp_path_factory.mktemp("data") / "sentences.txt"
    path.write_text("\n".join(SENTENCES * 2), encoding="utf-8")
    return EncodedCorpus(read_corpus(path), BiLSTMCRFProcessor(tokenizer), LABELS)


def new_tagger(tokenizer, seed: int = 0, **config) -> BiLSTMCRFForTokenClassification:
    """Return an untrained tagger whose scores vary as much as those of a trained one."""
    torch.manual_seed(seed)
    options = {"embedding_size": 16, "hidden_size": 24, "ngram_buckets": 256, "ngram_embedding_size": 8}
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    model = BiLSTMCRFForTokenClassification.from_tokenizer(tokenizer, **(options | names | config)).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(10)
        for parameter in model.crf.parameters():
            parameter.uniform_(-1, 1)
    return model


def new_reader(tokenizer) -> BiLSTMCRFForTokenClassification:
    """Return a tagger that reads morphemes, and knows the nouns of `SENTENCES`."""
    pytest.importorskip("kiwipiepy")
    model = new_tagger(tokenizer, read_morphemes=True, embedding_norm=8.0)
    model.bilstm.features.set_clusters(some_clusters())
    return model


def some_clusters() -> dict[int, int]:
    """Return random clusters of the nouns of `SENTENCES`, and of others; the real ones take long to compute."""
    generator, texts = random.Random(1), [parse_inline(sentence)[0] for sentence in SENTENCES]
    nouns = [token for tokens in kiwi().tokenize(texts) for token in tokens if token.tag.startswith("N")]
    hashes = [*map(morpheme_hash, nouns), *(generator.randrange(2**31) for _ in range(50_000))]
    return {each: generator.randrange(NUM_CLUSTERS) for each in hashes}


@pytest.fixture(scope="session")
def tagger(tokenizer) -> BiLSTMCRFForTokenClassification:
    return new_tagger(tokenizer)


def finish_run(model: BiLSTMCRFForTokenClassification, tokenizer, folder: Path, **data: str) -> Path:
    """Write a run folder as recipes/ner.py does, and return it. The learning rate is 0: the weights stay the same.

    Args:
        model: the tagger to save.
        tokenizer: its tokenizer.
        folder: the run folder.
        data: fields of `SourceArguments`.
    """
    sentences = folder.with_name(f"{folder.name}.txt")
    sentences.write_text("\n".join(SENTENCES), encoding="utf-8")
    corpus = EncodedCorpus(read_corpus(sentences), BiLSTMCRFProcessor(tokenizer), LABELS)
    trainer = TaggerTrainer(
        model,
        TaggerTrainingArguments(str(folder), learning_rate=0.0, num_train_epochs=1, use_cpu=True, disable_tqdm=True),
        data_collator=DataCollatorForTokenClassification(tokenizer),
        train_dataset=corpus.inputs,
        eval_dataset=corpus.inputs,
        processing_class=tokenizer,
        compute_metrics=EntityScorer(corpus),
        preprocess_logits_for_metrics=best_labels,
        columns={"f1": "F1"},
    )
    _, results = trainer.train_and_score(
        {"train": corpus.inputs, "validation": corpus.inputs}, {"validation": EntityScorer(corpus)}
    )
    results |= {f"{split}_sentences": len(SENTENCES) for split in ("train", "validation")}
    predictions = [(text, spans, []) for text, spans in zip(corpus.texts, corpus.spans)]
    settings = [ModelArguments(), SourceArguments(**data), CardArguments(license="apache-2.0")]
    save_run(trainer, settings, results, predictions, {"f1": "F1"}, {})
    return folder


@contextmanager
def keeping_out(folder: Path, name: str = ""):
    """Let another process lock a folder, or a file in it, in the context; return the id of the process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with locked(folder, name):
                os.write(write, b"locked")
                time.sleep(1000)
        finally:
            os._exit(1)
    assert os.read(read, 6) == b"locked"
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)
