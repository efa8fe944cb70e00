"""What recipes/benchmark.py measures against: the tutorial's training loop, BERT-base, and taggers of other libraries.

None of them has to be accurate here: they are built on the same sentences and timed.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torchcrf import CRF
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerBase


class TutorialTagger(nn.Module):
    """The BiLSTM-CRF of the tutorial: torchcrf over a packed-free LSTM, every batch padded to 128 tokens."""

    def __init__(self, vocab_size: int, num_tags: int, embedding_size: int = 768, hidden_size: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.lstm = nn.LSTM(embedding_size, hidden_size // 2, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(hidden_size, num_tags)
        self.crf = CRF(num_tags, batch_first=True)

    def loss(self, input_ids: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        """All (B, 128); the mean negative log-likelihood."""
        emissions = self.linear(self.lstm(self.embedding(input_ids))[0])
        return -self.crf(emissions, tags, mask=mask, reduction="mean")


def tutorial_steps(model: TutorialTagger, batches: Sequence[dict[str, Tensor]]) -> Callable[[], None]:
    """The tutorial's loop over `batches`: loss, backward, clipping at 1, Adam over all weights."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def steps() -> None:
        for batch in batches:
            optimizer.zero_grad()
            model.loss(batch["input_ids"], batch["attention_mask"].bool(), batch["labels"].clamp(min=0)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return steps


def bert_base(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> BertForTokenClassification:
    """A random model of BERT-base's shape, with as many word embeddings as `tokenizer` has tokens."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    return BertForTokenClassification(BertConfig(vocab_size=len(tokenizer), **names)).eval()


def flair_tagger(words: list[list[str]], tags: list[list[str]]) -> Callable[[list[list[str]]], object]:
    """Flair's BiLSTM-CRF over one-hot word embeddings, with its own batching."""
    from flair.data import Dictionary, Sentence
    from flair.embeddings import OneHotEmbeddings
    from flair.models import SequenceTagger

    vocabulary, labels = Dictionary(), Dictionary(add_unk=False)
    for word in {word for sentence in words for word in sentence}:
        vocabulary.add_item(word)
    for label in sorted({tag[2:] for sentence in tags for tag in sentence if tag != "O"}):
        labels.add_item(label)
    tagger = SequenceTagger(OneHotEmbeddings(vocabulary), labels, "ner", hidden_size=256, tag_format="BIO")
    return lambda sentences: tagger.predict([Sentence(sentence) for sentence in sentences], mini_batch_size=32)


def spacy_tagger(words: list[list[str]], tags: list[list[str]]) -> Callable[[list[list[str]]], object]:
    """spaCy's transition-based NER over its default tok2vec."""
    import spacy
    from spacy.tokens import Doc
    from spacy.training import Example

    nlp = spacy.blank("xx")
    nlp.add_pipe("ner")
    docs = [Doc(nlp.vocab, words=sentence) for sentence in words]
    examples = [Example.from_dict(doc, {"entities": row}) for doc, row in zip(docs, tags, strict=True)]
    nlp.initialize(lambda: examples)
    return lambda sentences: list(nlp.pipe(Doc(nlp.vocab, words=sentence) for sentence in sentences))


def crfsuite_tagger(words: list[list[str]], tags: list[list[str]]) -> Callable[[list[list[str]]], object]:
    """CRFsuite's linear CRF over character n-grams of up to three within two characters, as Korean taggers use it."""
    import pycrfsuite

    def features(sentence: list[str]) -> list[list[str]]:
        padded = ["<", "<", *(character for word in sentence for character in (*word, " ")), ">", ">"]
        return [
            [f"{first}:{''.join(padded[i + first : i + first + n])}" for n in (1, 2, 3) for first in range(-2, 4 - n)]
            for i in range(2, len(padded) - 2)
        ]

    trainer = pycrfsuite.Trainer(verbose=False)
    for sentence, row in zip(words, tags, strict=True):
        spread = [tag for word, tag in zip(sentence, row, strict=True) for tag in [tag] * (len(word) + 1)]
        trainer.append(features(sentence), spread)
    trainer.set_params({"max_iterations": 5})
    trainer.train("crfsuite.model")
    tagger = pycrfsuite.Tagger()
    tagger.open("crfsuite.model")
    return lambda sentences: [tagger.tag(features(sentence)) for sentence in sentences]


LIBRARIES = {
    name: build
    for name, module, build in (
        ("Flair", "flair", flair_tagger),
        ("spaCy", "spacy", spacy_tagger),
        ("CRFsuite", "pycrfsuite", crfsuite_tagger),
    )
    if find_spec(module)
}
"""Builders of the taggers of those libraries that are installed."""
