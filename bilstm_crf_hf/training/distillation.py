"""Distillation: soft labels of raw texts by teachers, and a tagger that learns from them.

A teacher is any token classifier over any tokenizer. Its probabilities are spread over the characters of the text,
averaged with those of other teachers there, and read off again at the tokens of the student.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher, generate_random_fingerprint
from torch import Tensor
from torch.nn.functional import one_hot, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from ..alignment import IGNORED, character_ranges
from ..crf import LinearChainCRF
from ..data.collation import TaggingCollator
from ..data.encoding import EncodedCorpus, offsets_of_words
from ..processing_bilstm_crf import BiLSTMCRFProcessor, labels_words
from ..recursions import IMPOSSIBLE
from .new_labels import entity_types, types_without_entity
from .teachers import check_teacher
from .trainer import TaggerTrainer


class Teacher:
    """Token classifier that gives the characters of texts probabilities of labels, the softmax of its logits.

    Args:
        model: any token classifier.
        processor: the way from texts to its inputs.
        labels: labels of the student, in BIO.
        bf16: whether to compute under autocast in bfloat16.

    Raises:
        ValueError: if the labels of the model differ.
    """

    def __init__(
        self, model: PreTrainedModel, processor: BiLSTMCRFProcessor, labels: Sequence[str], bf16: bool = False
    ) -> None:
        check_teacher(model, labels)
        self.model, self.processor, self.bf16 = model.eval(), processor, bf16
        self.collator = TaggingCollator(processor.tokenizer)
        self.order = torch.tensor([model.config.label2id[label] for label in labels])
        # Within a token that begins an entity, the characters behind the first one continue the entity.
        inner = [f"I-{label[2:]}" if label.startswith("B-") else label for label in labels]
        self.inner = torch.tensor([labels.index(label) for label in inner])

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the probabilities (len(text), K) of each text, float32; 0 for characters of no token."""
        encoded = self.processor(texts)
        rows = zip(*encoded.inputs.values(), strict=True)
        batch = self.collator([dict(zip(encoded.inputs, row, strict=True)) for row in rows])
        device = self.model.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.model(**{name: values.to(device) for name, values in batch.items()}).logits
        tokens = logits.float().softmax(-1).cpu()[..., self.order]  # (B, S, K)
        inner = torch.zeros_like(tokens).index_add_(-1, self.inner, tokens)
        spread = []
        for text, offsets, first, rest in zip(texts, encoded.offsets, tokens.numpy(), inner.numpy(), strict=True):
            characters = np.zeros((len(text), first.shape[-1]), np.float32)
            for i, (start, end) in enumerate(character_ranges(text, offsets)):
                if start < end:
                    characters[start:end] = rest[i]
                    characters[start] = first[i]
            spread.append(characters)
        return spread


class SoftLabels:
    """Texts as rows for a student: its inputs, `labels` and `soft_labels`.

    `soft_labels` are the mean probabilities of the teachers for the first character of each token, (S * K) numbers, 0
    for special tokens; those of a student of words stand at the first tokens of its words. `labels` are the most
    probable sequence if tokens were independent except for the constraints of BIO. A character that some teachers do
    not read has the mean of the others; one that no teacher reads has the soft labels 0 and the label -100, which is an
    unknown label.

    Args:
        teachers: at least one.
        processor: the way from texts to the inputs of the student.
        labels: K labels in BIO.
    """

    def __init__(self, teachers: Sequence[Teacher], processor: BiLSTMCRFProcessor, labels: Sequence[str]) -> None:
        self.teachers, self.processor, self.num_labels = teachers, processor, len(labels)
        self.chain = LinearChainCRF(len(labels), batch_first=True, labels=labels)
        for parameter in self.chain.parameters():
            torch.nn.init.zeros_(parameter)

    def __call__(self, texts: Sequence[str]) -> dict[str, list]:
        """Return the columns of a batch of rows."""
        totals = [np.sum(rows, axis=0) for rows in zip(*(teacher(texts) for teacher in self.teachers))]
        probabilities = [total / total.sum(-1, keepdims=True).clip(min=1e-6) for total in totals]  # (len(text), K)
        encoded = self.processor(texts)
        places = encoded.offsets
        if labels_words(self.processor.config):
            places = offsets_of_words(self.processor.tokenizer, encoded.inputs["input_ids"], places)
        firsts = []  # the first character of each token, or of each word at its first token; -1 if there is none
        for text, offsets in zip(texts, places, strict=True):
            firsts.append(np.array([start if start < end else -1 for start, end in character_ranges(text, offsets)]))
        inner = [torch.from_numpy(rows[first[first >= 0]]) for rows, first in zip(probabilities, firsts, strict=True)]
        columns: dict[str, list] = encoded.inputs | {"labels": [], "soft_labels": []}
        for first, path, rows in zip(firsts, self._viterbi(inner), inner, strict=True):
            labels = np.full(len(first), IGNORED)
            labels[first >= 0] = np.where(rows.any(-1), path, IGNORED)
            soft = np.zeros((len(first), self.num_labels), np.float16)
            soft[first >= 0] = rows
            columns["labels"].append(labels)
            columns["soft_labels"].append(soft.ravel())
        return columns

    def _viterbi(self, probabilities: list[Tensor]) -> list[list[int]]:
        """Return the most probable valid sequence of each text for probabilities (tokens, K)."""
        # One timestep more than there are tokens, since a text may have none; O may follow any sequence.
        steps = [pad((rows + 1e-6).log(), (0, 0, 0, 1)) for rows in probabilities]
        lengths = torch.tensor([len(rows) for rows in steps])
        emissions = pad_sequence(steps, batch_first=True)
        paths = self.chain.decode(emissions, torch.arange(emissions.shape[1]) < lengths[:, None])
        return [path[:-1] for path in paths]


def student_fingerprint(processor: BiLSTMCRFProcessor, labels: Sequence[str]) -> str:
    """Return a name for all students that can learn from the same rows of [`SoftLabels`], if these have its inputs."""
    unit = ["words"] if labels_words(processor.config) else []
    return Hasher.hash((sorted(processor.tokenizer.get_vocab().items()), list(labels), *unit))


def with_soft_labels(dataset: Dataset, num_labels: int) -> Dataset:
    """Add to rows with gold `labels` the `soft_labels` that give each of them the probability 1."""

    def add(row: dict[str, Any]) -> dict[str, Any]:
        labels = np.array(row["labels"])
        soft = np.zeros((len(labels), num_labels), np.float16)
        known = labels != IGNORED
        soft[known, labels[known]] = 1
        return {"soft_labels": soft.ravel()}

    return dataset.map(add, features=soft_features(dataset))


def with_own_posteriors(model: PreTrainedModel, corpus: EncodedCorpus, share: float, batch_size: int) -> Dataset:
    """Return the rows of a corpus for a tagger that is to keep what it knows of the types without an entity in it.

    A token with the gold label O may have O or a label of one of these types; all other gold labels hold. Under these
    constraints, `labels` are the best path of the model, and `soft_labels` its posterior marginals times `share` plus
    the gold labels times 1 - `share`. It is the distillation of ExtendNER (Monaikul et al., 2021) for whole sequences.

    Raises:
        ValueError: if the model has no CRF, or the corpus has entities of all types.
    """
    if getattr(model, "crf", None) is None:
        raise ValueError(
            f"distill_from_self is for taggers with a CRF, which {type(model).__name__} lacks: leave it out"
        )
    if not (held := types_without_entity(corpus)):
        raise ValueError(
            "distill_from_self keeps entity types of which the training sentences have no entity, and they have some "
            f"of all types of the model ({', '.join(entity_types(corpus.labels))}): leave it out"
        )
    possible = torch.eye(len(corpus.labels), dtype=torch.bool, device=model.device)  # (K, K), labels for each gold one
    possible[corpus.labels.index("O")] |= possible.new_tensor([label[2:] in held for label in corpus.labels])
    collator = TaggingCollator(corpus.processor.tokenizer)
    model.eval().update_crf()

    @torch.inference_mode()
    def label(columns: dict[str, list]) -> dict[str, list]:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        batch = {name: values.to(model.device) for name, values in collator(rows).items()}
        inside, gold = batch["attention_mask"].bool(), batch.pop("labels")
        known, tags = (gold != IGNORED)[..., None], gold.clamp(min=0)
        emissions, sequences = model.emissions(**batch)
        emissions = emissions.masked_fill(sequences.pack(known & ~possible[tags]), IMPOSSIBLE)
        best, posterior = model.crf.viterbi(emissions, sequences.mask), model.crf.marginals(emissions, sequences.mask)
        paths = sequences.unpack(best, fill=IGNORED).masked_fill(gold == IGNORED, IGNORED)
        soft = (share * sequences.unpack(posterior) + (1 - share) * one_hot(tags, len(possible))) * known
        return {
            "labels": [row[own].cpu().numpy() for row, own in zip(paths, inside)],
            "soft_labels": [row[own].half().flatten().cpu().numpy() for row, own in zip(soft, inside)],
        }

    return corpus.inputs.map(
        label,
        batched=True,
        batch_size=batch_size,
        features=soft_features(corpus.inputs),
        keep_in_memory=True,
        new_fingerprint=generate_random_fingerprint(),  # else the weights would be hashed
        desc="Posteriors",
    )


def soft_features(dataset: Dataset) -> Features:
    """Return the columns of `dataset` and `soft_labels`."""
    return Features({**dataset.features, "soft_labels": List(Value("float16"))})


class DistillationTrainer(TaggerTrainer):
    """`TaggerTrainer` that learns from `soft_labels`.

    The loss is the cross entropy between the teachers' distribution over sequences and the model's, up to a constant:
    the logarithm of the partition function minus the score of `labels`, in which the emissions are replaced by their
    expectation under `soft_labels`. Its gradient in the emissions is the difference between the model's posterior
    marginals and the soft labels. This is structure-level distillation (Wang et al., 2020), except that transitions
    follow the best sequence. If the soft labels give `labels` the probability 1, it is the negative log-likelihood.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the loss, and the outputs on request."""
        soft = inputs.pop("soft_labels", None)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if soft is not None:
            labels = inputs["labels"]
            known = labels != IGNORED
            hard = one_hot(labels.masked_fill(~known, 0), soft.shape[-1]) * known[..., None]
            loss = loss + ((hard - soft) * outputs["logits"].float()).sum() / len(labels)
        return (loss, outputs) if return_outputs else loss
