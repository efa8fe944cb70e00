"""Models of `bilstm-crf benchmark`: those of this package, BERT-base, the tutorial's loop, and other libraries.

The peers are built on the same sentences and timed; their accuracy is not measured.
"""

import tempfile
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from torchcrf import CRF
from transformers import AutoTokenizer, BertConfig, BertForTokenClassification, PreTrainedModel

from .. import BiLSTMCRFForTokenClassification
from ..configuration_encoder import EncoderCRFConfig
from ..data.encoding import EncodedCorpus
from ..data.ner import labels_of
from ..data.tokenization import build_character_tokenizer
from ..evaluation.tasks import label_maps
from ..modeling_bilstm_crf import sequence_tokens
from ..modeling_encoder import EncoderCRFForTokenClassification
from ..processing_bilstm_crf import BiLSTMCRFProcessor

TUTORIAL = {
    "embedding_size": 768,
    "hidden_size": 256,
    "embedding_norm": 1.0,
    "ngrams": [],
    "jamo_embedding_size": 0,
    "locked_dropout": 0.0,
    "word_dropout": 0.0,
}
"""Configuration of the tutorial's model, as in recipes/configs/klue_ner_blog.yaml."""

MAX_LENGTH = 128
"""Limit in tokens of a sentence, as in the tutorial."""


class TutorialTagger(nn.Module):
    """BiLSTM-CRF of the tutorial: torchcrf over an LSTM that also reads the padding."""

    def __init__(self, vocab_size: int, num_tags: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 768)
        self.lstm = nn.LSTM(768, 128, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(256, num_tags)
        self.crf = CRF(num_tags, batch_first=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the mean negative log-likelihood of `labels` (B, S)."""
        emissions = self.linear(self.lstm(self.embedding(input_ids))[0])
        return {"loss": -self.crf(emissions, labels.clamp(min=0), mask=attention_mask.bool(), reduction="mean")}


class Models:
    """New models for the same sentences.

    Args:
        data: the splits `train` and `validation`, with `text` and character `tags`.
        tokenizer_name: WordPiece tokenizer of the tutorial's model and of BERT; None for characters.
        device: `cpu` or `cuda`.
        folder: output folder of training.
    """

    def __init__(self, data: DatasetDict, tokenizer_name: str | None, device: str, folder: Path) -> None:
        self.data, self.device, self.folder = data, device, folder
        self.labels = labels_of(data["train"])
        self.names = label_maps(self.labels)
        self.tokenizer = build_character_tokenizer(data["train"]["text"], 2)
        self.piece_tokenizer = AutoTokenizer.from_pretrained(tokenizer_name) if tokenizer_name else self.tokenizer

    @cached_property
    def characters(self) -> EncodedCorpus:
        """Return the training sentences over characters."""
        return EncodedCorpus(self.data["train"], BiLSTMCRFProcessor(self.tokenizer), self.labels, MAX_LENGTH)

    @cached_property
    def pieces(self) -> EncodedCorpus:
        """Return the training sentences over the tokens of the tutorial's model and of BERT."""
        return EncodedCorpus(self.data["train"], BiLSTMCRFProcessor(self.piece_tokenizer), self.labels, MAX_LENGTH)

    def default(self) -> BiLSTMCRFForTokenClassification:
        """Return the default model, without morphemes."""
        return BiLSTMCRFForTokenClassification.from_tokenizer(self.tokenizer, **self.names).to(self.device)

    def tutorial(self) -> BiLSTMCRFForTokenClassification:
        """Return the tutorial's model as one of this package."""
        model = BiLSTMCRFForTokenClassification.from_tokenizer(self.piece_tokenizer, **self.names, **TUTORIAL)
        return model.to(self.device)

    def bert(self) -> PreTrainedModel:
        """Return a random model of BERT-base's shape with a token head."""
        return BertForTokenClassification(BertConfig(vocab_size=len(self.piece_tokenizer), **self.names)).eval()

    def bert_crf(self) -> PreTrainedModel:
        """Return a CRF on a random encoder of BERT-base's shape."""
        encoder, tokens = BertConfig(vocab_size=len(self.piece_tokenizer)), sequence_tokens(self.piece_tokenizer)
        return EncoderCRFForTokenClassification(EncoderCRFConfig(encoder_config=encoder, **tokens, **self.names))

    def library_taggers(self) -> tuple[dict[str, Callable[[list], object]], list[list[str]]]:
        """Return the taggers of the libraries that are installed, after a short training, and sentences for them.

        They tag characters, since Korean entities end within words.
        """
        sentences, tags = self._characters("train", 2000)
        libraries = {"spaCy": ("spacy", spacy_tagger), "CRFsuite": ("pycrfsuite", crfsuite_tagger)}
        taggers = {name: build(sentences, tags) for name, (module, build) in libraries.items() if find_spec(module)}
        return taggers, self._characters("validation", 1000)[0]

    def _characters(self, split: str, limit: int) -> tuple[list[list[str]], list[list[str]]]:
        rows: Dataset = self.data[split].select(range(min(limit, len(self.data[split]))))
        names = labels_of(rows)
        return [list(text) for text in rows["text"]], [[names[i] for i in tags] for tags in rows["tags"]]


def spacy_tagger(sentences: list[list[str]], tags: list[list[str]]) -> Callable[[list], object]:
    """Return spaCy's transition-based NER over its default tok2vec."""
    import spacy
    from spacy.tokens import Doc
    from spacy.training import Example

    nlp = spacy.blank("xx")
    nlp.add_pipe("ner")
    docs = [Doc(nlp.vocab, words=sentence) for sentence in sentences]
    examples = [Example.from_dict(doc, {"entities": row}) for doc, row in zip(docs, tags, strict=True)]
    optimizer = nlp.initialize(lambda: examples)
    for start in range(0, len(examples), 64):
        nlp.update(examples[start : start + 64], sgd=optimizer)
    return lambda texts: list(nlp.pipe(Doc(nlp.vocab, words=text) for text in texts))


def crfsuite_tagger(sentences: list[list[str]], tags: list[list[str]]) -> Callable[[list], object]:
    """Return CRFsuite's linear CRF over the n-grams of up to four units that begin or end within three of a unit."""
    import pycrfsuite

    windows = [(first, first + n) for n in (1, 2, 3, 4) for first in range(-3, 5 - n)]

    def features(sentence: list[str]) -> list[list[str]]:
        padded = ["^"] * 3 + sentence + ["$"] * 3
        return [
            [f"{first}:{last}:{''.join(padded[i + first : i + last])}" for first, last in windows]
            for i in range(3, len(padded) - 3)
        ]

    trainer = pycrfsuite.Trainer(verbose=False)
    for sentence, row in zip(sentences, tags, strict=True):
        trainer.append(features(sentence), row)
    trainer.set_params({"max_iterations": 20})
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(f"{folder}/model")
        tagger = pycrfsuite.Tagger()
        tagger.open(f"{folder}/model")
    return lambda texts: [tagger.tag(features(text)) for text in texts]
