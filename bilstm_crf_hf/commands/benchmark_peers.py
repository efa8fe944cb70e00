"""Peers in `bilstm-crf benchmark`: the tutorial's training loop, BERT-base, and taggers of other libraries.

The peers are built on the same sentences and timed; their accuracy is not measured.
"""

import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torchcrf import CRF
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerBase

from ..evaluation.tasks import label_maps

Tagger = Callable[[list[list[str]]], object]
"""Function that tags sentences, each a list of units."""


class TutorialTagger(nn.Module):
    """BiLSTM-CRF of the tutorial: torchcrf over an LSTM that also reads the padding."""

    def __init__(self, vocab_size: int, num_tags: int, embedding_size: int = 768, hidden_size: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.lstm = nn.LSTM(embedding_size, hidden_size // 2, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(hidden_size, num_tags)
        self.crf = CRF(num_tags, batch_first=True)

    def loss(self, input_ids: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of `tags`; all arguments are (B, 128)."""
        emissions = self.linear(self.lstm(self.embedding(input_ids))[0])
        return -self.crf(emissions, tags, mask=mask, reduction="mean")


def tutorial_steps(model: TutorialTagger, batches: Sequence[dict[str, Tensor]]) -> Callable[[], None]:
    """Return the tutorial's loop over `batches`: loss, backward, clipping at 1, Adam over all weights."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def steps() -> None:
        for batch in batches:
            optimizer.zero_grad()
            model.loss(batch["input_ids"], batch["attention_mask"].bool(), batch["labels"].clamp(min=0)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return steps


def bert_base(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> BertForTokenClassification:
    """Return a random model of BERT-base's shape, with as many word embeddings as `tokenizer` has tokens."""
    return BertForTokenClassification(BertConfig(vocab_size=len(tokenizer), **label_maps(labels))).eval()


def flair_tagger(sentences: list[list[str]], tags: list[list[str]]) -> Tagger:
    """Return Flair's BiLSTM-CRF over one-hot embeddings, with its own batching."""
    from flair.data import Dictionary, Sentence
    from flair.embeddings import OneHotEmbeddings
    from flair.models import SequenceTagger

    vocabulary, labels = Dictionary(), Dictionary(add_unk=False)
    for unit in sorted({unit for sentence in sentences for unit in sentence}):
        vocabulary.add_item(unit)
    for label in sorted({tag[2:] for row in tags for tag in row if tag != "O"}):
        labels.add_item(label)
    tagger = SequenceTagger(OneHotEmbeddings(vocabulary), labels, "ner", hidden_size=256, tag_format="BIO")
    return lambda texts: tagger.predict([Sentence(text) for text in texts], mini_batch_size=32)


def spacy_tagger(sentences: list[list[str]], tags: list[list[str]]) -> Tagger:
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


def crfsuite_tagger(sentences: list[list[str]], tags: list[list[str]]) -> Tagger:
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


LIBRARIES = {
    name: build
    for name, module, build in (
        ("Flair", "flair", flair_tagger),
        ("spaCy", "spacy", spacy_tagger),
        ("CRFsuite", "pycrfsuite", crfsuite_tagger),
    )
    if find_spec(module)
}
"""Builders of taggers, for the libraries that are installed."""
