"""Labels of entity types that a trained tagger does not know yet."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from transformers import PreTrainedModel

from ..alignment import scheme_of
from ..data.encoding import EncodedCorpus
from ..evaluation.tasks import label_maps

NEW_LABEL_BIAS = -3.0
"""Bias of new labels before training: low enough for them not to be predicted, and not too low to be learnt soon."""


def entity_types(labels: Sequence[str]) -> list[str]:
    """Return the entity types of BIO or BIOES labels, in the order of their first labels."""
    return list(dict.fromkeys(label[2:] for label in labels if label != "O"))


def types_without_entity(corpus: EncodedCorpus) -> list[str]:
    """Return the entity types in the labels of a corpus of which it has no entity."""
    found = {span.label for spans in corpus.spans for span in spans}
    return [name for name in entity_types(corpus.labels) if name not in found]


def labels_to_add(own: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the labels of the entity types that are in `labels` but not in `own`, in the scheme of `own`.

    Raises:
        ValueError: if a new type differs from one in `own` only in case.
    """
    known = {name.casefold(): name for name in entity_types(own)}
    new = [name for name in entity_types(labels) if name not in known.values()]
    for name in new:
        if name.casefold() in known:
            raise ValueError(
                f"the data have the entity type {name}, the model has {known[name.casefold()]}: rename it in the data"
            )
    return [f"{prefix}-{name}" for name in new for prefix in ("BIES" if scheme_of(own) == "BIOES" else "BI")]


@torch.no_grad()
def with_labels(model: PreTrainedModel, new: Sequence[str]) -> PreTrainedModel:
    """Return a model with the weights of a tagger and with `new` labels behind its own.

    The rows of new labels in the classifier are those of a new head, but with `NEW_LABEL_BIAS`. In the transitions of
    the CRF, new labels are copies of O, for which the tagger has taken their entities so far.
    """
    own = [model.config.id2label[i] for i in range(model.config.num_labels)]
    config = deepcopy(model.config)
    config.update(label_maps([*own, *new]))
    grown = type(model)(config)
    sources = torch.tensor([*range(len(own)), *[own.index("O")] * len(new)])
    before = model.state_dict()
    for name, value in grown.state_dict().items():
        known = before[name]
        if value.shape != known.shape and name.startswith("crf."):
            for dimension in range(known.dim()):
                known = known.index_select(dimension, sources)
        elif value.shape != known.shape and name.endswith("bias"):
            value[len(own) :] = NEW_LABEL_BIAS
        value[tuple(map(slice, known.shape))] = known
    return grown
