"""What teachers say of raw text, as soft labels, and a tagger that learns from them.

A teacher is any token classifier over any tokenizer. Its probabilities are spread over the characters of the text,
where those of several teachers are averaged, and read off again by the student's tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher
from torch import Tensor
from torch.nn.functional import one_hot, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..alignment import IGNORED, character_ranges
from ..crf import LinearChainCRF
from ..data.collation import TaggingCollator, more_columns
from .trainer import TaggerTrainer


class Teacher:
    """Probabilities of labels for the characters of texts.

    Args:
        model: any token classifier; the softmax of its logits are its probabilities.
        tokenizer: its tokenizer, with offsets.
        labels: the student's labels, in BIO.
        bf16: whether to compute under autocast in bfloat16.
        pieces: of a tagger of characters with an encoder, the encoder's tokenizer.

    Raises:
        ValueError: the model's labels are not these.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        bf16: bool = False,
        pieces: PreTrainedTokenizerBase | None = None,
    ) -> None:
        own = model.config.label2id
        if set(own) != set(labels):
            raise ValueError(
                f"the teacher {model.name_or_path} has the labels {', '.join(own)}, not {', '.join(labels)}"
            )
        self.model, self.tokenizer, self.bf16, self.pieces = model.eval(), tokenizer, bf16, pieces
        self.morphemes = getattr(model.config, "morphemes", None)
        self.collator = TaggingCollator(tokenizer)
        self.order = torch.tensor([own[label] for label in labels])
        opening = [label.startswith("B-") for label in labels]
        # Within a token that begins an entity, the characters behind the first continue it.
        self.inner = torch.tensor(
            [labels.index(f"I-{label[2:]}") if begins else i for i, (label, begins) in enumerate(zip(labels, opening))]
        )

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """(len(text), K) of each text, float32. Characters of no token, as white space, have zeros."""
        columns = self.tokenizer(list(texts), return_offsets_mapping=True, truncation=True)
        offsets = columns.pop("offset_mapping")
        columns |= more_columns(texts, offsets, self.pieces, self.morphemes)
        encoded = self.collator([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
        device = self.model.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.model(**{name: values.to(device) for name, values in encoded.items()}).logits
        tokens = logits.float().softmax(-1).cpu()[..., self.order]  # (B, S, K)
        inner = torch.zeros_like(tokens).index_add_(-1, self.inner, tokens)
        spread = []
        for text, pairs, first, rest in zip(texts, offsets, tokens.numpy(), inner.numpy(), strict=True):
            rows = np.zeros((len(text), first.shape[-1]), np.float32)
            for i, (start, end) in enumerate(character_ranges(text, pairs)):
                if start < end:
                    rows[start:end] = rest[i]
                    rows[start] = first[i]
            spread.append(rows)
        return spread


class SoftLabels:
    """Texts as rows for a student: `input_ids`, `attention_mask`, `labels` and `soft_labels`.

    `soft_labels` are the teachers' mean probabilities of each token's first character, (S * K) numbers, 0 on special
    tokens; `labels` the sequence that is the most probable if tokens were independent but for what BIO rules out. Of a
    character that only some teachers read, these are asked; one that none reads has 0 and -100, an unknown label.

    Args:
        teachers: at least one.
        tokenizer: the student's.
        labels: K labels in BIO.
        morphemes: the version of Kiwi's model that the student reads; its rows have `morpheme_ids` then.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        morphemes: str | None = None,
    ) -> None:
        self.teachers, self.tokenizer, self.num_labels = teachers, tokenizer, len(labels)
        self.morphemes = morphemes
        self.chain = LinearChainCRF(len(labels), batch_first=True, labels=labels)
        for parameter in self.chain.parameters():
            torch.nn.init.zeros_(parameter)

    def __call__(self, texts: Sequence[str]) -> dict[str, list]:
        """The columns of a batch of rows."""
        answers = [_mean(rows) for rows in zip(*(teacher(texts) for teacher in self.teachers))]
        encoded = self.tokenizer(list(texts), return_offsets_mapping=True, truncation=True, return_token_type_ids=False)
        columns = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        columns |= more_columns(texts, encoded["offset_mapping"], None, self.morphemes)
        firsts = []  # of each token its first character, -1 if it has none
        for text, pairs in zip(texts, encoded["offset_mapping"], strict=True):
            firsts.append(np.array([start if start < end else -1 for start, end in character_ranges(text, pairs)]))
        inner = [torch.from_numpy(rows[first[first >= 0]]) for rows, first in zip(answers, firsts, strict=True)]
        paths = self._best_paths(inner)
        columns["labels"], columns["soft_labels"] = [], []
        for first, path, rows in zip(firsts, paths, inner, strict=True):
            labels = np.full(len(first), IGNORED)
            labels[first >= 0] = np.where(rows.any(-1), path, IGNORED)
            soft = np.zeros((len(first), self.num_labels), np.float16)
            soft[first >= 0] = rows
            columns["labels"].append(labels)
            columns["soft_labels"].append(soft.ravel())
        return columns

    def _best_paths(self, probabilities: list[Tensor]) -> list[list[int]]:
        # A step more than there are tokens, since a text may have none: whatever the path is, O may follow.
        steps = [pad((rows + 1e-6).log(), (0, 0, 0, 1)) for rows in probabilities]
        lengths = torch.tensor([len(rows) for rows in steps])
        emissions = pad_sequence(steps, batch_first=True)
        paths = self.chain.decode(emissions, torch.arange(emissions.shape[1]) < lengths[:, None])
        return [path[:-1] for path in paths]


def _mean(answers: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of probabilities (N, K) of several teachers, in each row of those that have some; else zeros."""
    total = np.sum(answers, axis=0)
    return total / total.sum(-1, keepdims=True).clip(min=1e-6)


def student_of(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], morphemes: str | None = None) -> str:
    """A name for all whose ids are in rows of [`SoftLabels`]."""
    return Hasher.hash((sorted(tokenizer.get_vocab().items()), list(labels), *([morphemes] if morphemes else [])))


def as_soft(dataset: Dataset, num_labels: int) -> Dataset:
    """Rows with gold `labels`, with `soft_labels` that say the same."""

    def add(row: dict[str, Any]) -> dict[str, Any]:
        labels = np.array(row["labels"])
        soft = np.zeros((len(labels), num_labels), np.float16)
        known = labels != IGNORED
        soft[known, labels[known]] = 1
        return {"soft_labels": soft.ravel()}

    return dataset.map(add, features=Features({**dataset.features, "soft_labels": List(Value("float16"))}))


class DistillationTrainer(TaggerTrainer):
    """`TaggerTrainer` that learns from `soft_labels`.

    The loss is the cross entropy of the model's distribution over sequences relative to the teachers', up to a
    constant: the negative score of `labels`, with the emissions' part of it in expectation over `soft_labels`, plus the
    logarithm of the partition function. Its gradient in the emissions is the difference of the two posterior marginals.
    (That is structure-level distillation, Wang et al., 2020, but for transitions, which follow the best sequence.)
    Where the soft labels are those of `labels`, it is the negative log-likelihood.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        soft = inputs.pop("soft_labels", None)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if soft is not None:
            labels = inputs["labels"]
            known = labels != IGNORED
            hard = one_hot(labels.masked_fill(~known, 0), soft.shape[-1]) * known[..., None]
            loss = loss + ((hard - soft) * outputs["logits"].float()).sum() / len(labels)
        return (loss, outputs) if return_outputs else loss
