"""Labels of a batch, checked, and losses. This file is copied into exported model repositories.

Letters in shapes: those of `modeling_bilstm_crf`.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedConfig
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from .alignment import IGNORED
from .crf import LinearChainCRF, broken_step, raise_unless
from .recursions import IMPOSSIBLE
from .sequences import Sequences


def crf_loss(crf: LinearChainCRF, emissions: Tensor, labels: Tensor, sequences: Sequences) -> Tensor:
    """Return the negative log-likelihood of `labels` (B, S), mean over the sentences, for emissions (T, B, K).

    Raises:
        ValueError: if `labels` are not integers (B, S) and, on the CPU, if a label is not in [0, K) or -100, or if the
            tag scheme rules out the labels of a sentence. On other devices the latter two are device-side assertions.
    """
    check_ids(labels, tuple(sequences.chosen.shape), "(B, S) as input_ids")
    tags = sequences.pack(labels.long()).masked_fill(~sequences.inside, IGNORED)  # (T, B)
    if tags.device.type == "cpu":
        wrong = (tags != IGNORED) & ((tags < 0) | (tags >= crf.num_tags))
        for row, step in wrong.T.nonzero()[:1].tolist():
            raise ValueError(
                f"labels: row {row} of the batch has {tags[step, row]} at token {sequences.order[row, step]}: "
                f"give a label from 0 to {crf.num_tags - 1}, or {IGNORED} if it is unknown"
            )
    # A sentence without any token is a sequence of one unknown label, whose loss is 0.
    likelihood = crf(emissions, tags, sequences.mask, reduction="none")  # (B,)
    impossible = likelihood.detach() < IMPOSSIBLE / 2
    if impossible.device.type == "cpu":
        _check_paths(crf, tags, impossible, sequences)
    else:
        raise_unless(~impossible, "labels: the tag scheme rules out those of a row; run on the CPU to see which")
    return -likelihood.mean()


def _check_paths(crf: LinearChainCRF, tags: Tensor, impossible: Tensor, sequences: Sequences) -> None:
    names = crf.labels or range(crf.num_tags)
    for row in impossible.nonzero()[:, 0].tolist():
        path = tags[: sequences.lengths[row], row].tolist()
        if (step := broken_step(crf.possible, path)) is None:
            continue  # the labels are possible, but have emissions of -inf
        before, after = step
        where = sequences.order[row].tolist()
        follows = f"{names[path[after]]} at token {where[after]}" if after < len(path) else "the end"
        precedes = f"{names[path[before]]} at token {where[before]}" if before >= 0 else "the start"
        raise ValueError(
            f"labels: row {row} of the batch has {follows} after {precedes}, which the tag scheme of the labels rules "
            "out: correct the labels, or set config.constrained to false"
        )


def classification_loss(config: PreTrainedConfig, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of a text classifier for logits (B, K), mean over the batch, as the models of transformers do.

    `config.problem_type` decides; if it is None, the first labels decide and it is set: `regression` for K = 1,
    `single_label_classification` for integers, `multi_label_classification` for other numbers. The labels of a
    `single_label_classification` may be probabilities (B, K), too.

    Raises:
        ValueError: if the labels do not have the shape or type of the problem, or, on the CPU, if one is not in [0, K).
    """
    batch, num_labels = logits.shape
    soft = labels.is_floating_point()
    if config.problem_type is None:
        several = "multi_label_classification" if soft else "single_label_classification"
        config.problem_type = "regression" if num_labels == 1 else several
    if config.problem_type == "single_label_classification" and not soft:
        if labels.shape == (batch, 1):
            labels = labels[:, 0]
        check_ids(labels, (batch,), "(B,)")
        if labels.device.type == "cpu":
            for (row,) in ((labels != IGNORED) & ((labels < 0) | (labels >= num_labels))).nonzero()[:1].tolist():
                raise ValueError(
                    f"labels: row {row} of the batch has {labels[row]}: give one from 0 to {num_labels - 1}"
                )
        return ForSequenceClassificationLoss(labels.long(), logits, config)
    if labels.shape != logits.shape and not (num_labels == 1 and labels.shape == (batch,)):
        raise ValueError(
            f"labels for {config.problem_type} must be numbers of shape {tuple(logits.shape)}, a row for each text and "
            f"a column for each label, got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    labels = labels.to(logits.dtype)
    if config.problem_type == "single_label_classification":
        return cross_entropy(logits, labels)
    return ForSequenceClassificationLoss(labels, logits, config)


def check_ids(labels: Tensor, shape: tuple[int, ...], description: str) -> None:
    """Raise a ValueError unless `labels` are integers of `shape`, which the error describes."""
    if tuple(labels.shape) != shape or labels.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8):
        raise ValueError(
            f"labels must be signed integers of shape {shape}, {description}, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )
