"""Models of `bilstm-crf benchmark`: those of this package, BERT-base, the tutorial's loop, and other libraries.

The peers are built on the same sentences and timed; their accuracy is not measured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from torchcrf import CRF
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForTokenClassification,
    ElectraConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TokenClassificationPipeline,
)

from .. import BiLSTMCRFForTokenClassification
from ..configuration_encoder import EncoderCRFConfig
from ..data.encoding import EncodedCorpus
from ..data.ner import labels_of
from ..data.tokenization import build_character_tokenizer
from ..evaluation.tasks import label_maps
from ..modeling_bilstm_crf import sequence_tokens
from ..modeling_encoder import EncoderCRFForTokenClassification
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from .benchmark_libraries import Units, character_features, load_crfsuite, load_spacy, train_crfsuite, train_spacy

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

KOELECTRA_SMALL = {
    "vocab_size": 35000,
    "embedding_size": 128,
    "hidden_size": 256,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
"""Configuration of monologg/koelectra-small-v3-discriminator."""

BATCH = 32
"""Number of sentences that encoders read at a time."""

Tagger = Callable[..., object]
"""A function of sentences; those of this package also have the argument `num_workers`."""


@dataclass(frozen=True)
class Candidate:
    """A tagger whose speed is measured, in processes to which all fields are sent."""

    load: Callable[[], Tagger]
    """Function that loads the tagger."""
    texts: list
    """Sentences to tag."""
    numbers: str | None = None
    """The type of the numbers that a tagger of this package multiplies; None for a peer."""


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

    def default(self, **config) -> BiLSTMCRFForTokenClassification:
        """Return the default model, without morphemes unless `config` has them."""
        return BiLSTMCRFForTokenClassification.from_tokenizer(self.tokenizer, **self.names, **config).to(self.device)

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

    def peers(self, texts: list[str], folder: Path) -> dict[str, Candidate]:
        """Return other taggers; files that they load are written to `folder`.

        BERT-base in the stock pipeline; on the CPU also the shapes of BERT-base and KoELECTRA-small in int8 in
        onnxruntime, whose results are only the labels of tokens, and the libraries that are installed.
        """
        bert = BertConfig(vocab_size=len(self.piece_tokenizer), **self.names)
        load = partial(load_encoder, bert, self.piece_tokenizer, self.device)
        if self.device != "cpu":
            return {"BERT-base, bfloat16": Candidate(load, texts[:1024])}
        electra = ElectraConfig(**(KOELECTRA_SMALL | self.names))
        found = {"BERT-base": Candidate(load, evenly(texts, 64))}
        for name, config, count in (("KoELECTRA-small", electra, 512), ("BERT-base", bert, 128)):
            load = partial(load_onnx_encoder, export_encoder(config, folder / f"{name}.onnx"), self.piece_tokenizer)
            found[f"{name}, ONNX, int8"] = Candidate(load, evenly(texts, count))
        return found | self.library_taggers(folder)

    def library_taggers(self, folder: Path) -> dict[str, Candidate]:
        """Return the taggers of the libraries that are installed, after a short training.

        They tag characters, since Korean entities end within words.
        """
        train, validation = self._characters("train", 2000), self._characters("validation", 1000)
        found = {}
        if find_spec("spacy"):
            train_spacy(train, validation, folder / "spaCy", max_steps=200)
            found["spaCy"] = Candidate(partial(load_spacy, folder / "spaCy"), validation.sentences)
        if find_spec("pycrfsuite"):
            train_crfsuite(train, folder / "CRFsuite", character_features, max_iterations=20)
            load = partial(load_crfsuite, folder / "CRFsuite", character_features)
            found["CRFsuite"] = Candidate(load, validation.sentences)
        return found

    def _characters(self, split: str, limit: int) -> Units:
        rows: Dataset = self.data[split].select(range(min(limit, len(self.data[split]))))
        names = labels_of(rows)
        return Units([list(text) for text in rows["text"]], [[names[i] for i in tags] for tags in rows["tags"]])


def evenly(texts: list[str], count: int) -> list[str]:
    """Return about `count` of the texts: batches of similar lengths, evenly over all lengths."""
    texts = sorted(texts, key=len)
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    chosen = min(len(batches), -(-count // BATCH))
    places = (((2 * n + 1) * len(batches) - chosen) // (2 * chosen) for n in range(chosen))
    return [text for place in places for text in batches[place]]


def load_encoder(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, device: str) -> Tagger:
    """Return a random encoder with a token head in the stock pipeline, in bfloat16 off the CPU."""
    model, batch = AutoModelForTokenClassification.from_config(config).eval(), BATCH
    if device != "cpu":
        model, batch = model.bfloat16(), 128
    return TokenClassificationPipeline(model=model, tokenizer=tokenizer, device=device, batch_size=batch)


def export_encoder(config: PreTrainedConfig, path: Path) -> Path:
    """Write a random encoder with a token head to an ONNX graph, with weights in int8; return the path."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    inputs = {name: torch.ones(2, 8, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    plain, shape = path.with_suffix(".float32.onnx"), dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    torch.onnx.export(
        _Logits(AutoModelForTokenClassification.from_config(config)).eval(),
        kwargs=inputs,
        f=plain,
        dynamo=True,
        verbose=False,
        input_names=list(inputs),
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(inputs, shape),
    )
    quantize_dynamic(plain, path, weight_type=QuantType.QInt8)
    return path


class _Logits(nn.Module):
    """An encoder whose only output are the logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the logits (B, S, K)."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def load_onnx_encoder(path: Path, tokenizer: PreTrainedTokenizerBase) -> Tagger:
    """Return a tagger that runs a graph of `export_encoder` on batches of similar length: labels of tokens only."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # its own default does not know the limit of a container
    session = onnxruntime.InferenceSession(path, options)

    def tag(texts: list[str]) -> None:
        texts = sorted(texts, key=len)
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(texts[start : start + BATCH], padding=True, return_tensors="np")
            session.run(None, {name: batch[name] for name in ("input_ids", "attention_mask")})[0].argmax(-1)

    return tag
