"""Arguments of all models of transformers. This file is copied into exported model repositories."""

import inspect
from collections.abc import Callable
from functools import wraps

from transformers.utils import can_return_tuple

from .processing_bilstm_crf import TEXT_INPUTS

REFUSED = {
    "inputs_embeds": "it also reads the ids of the tokens themselves: give input_ids",
    "position_ids": "it reads the tokens in their order: leave position_ids out, and put each text in a row of its own",
    "output_attentions": "there is no attention between the tokens: leave output_attentions out",
    "num_items_in_batch": "its loss is a mean over the batch: leave num_items_in_batch out, and divide the loss by the "
    "number of batches whose gradients are accumulated",
}
"""Reasons why a model does not take an argument that other models take. None and false stand for its absence."""


def takes_standard_arguments(forward: Callable) -> Callable:
    """Let a `forward` without these take the arguments of [`REFUSED`], and `return_dict`.

    The defaults of `output_hidden_states` and `output_attentions` are those of the configuration. An argument that the
    model cannot follow is a ValueError, unless `forward` takes it itself.
    """
    refused = REFUSED.keys() - inspect.signature(forward).parameters.keys()

    @can_return_tuple
    @wraps(forward)
    def wrapper(self, *args, output_hidden_states=None, output_attentions=None, **kwargs):
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        kwargs["output_attentions"] = self.config.output_attentions if output_attentions is None else output_attentions
        for name in refused & kwargs.keys():
            if (value := kwargs.pop(name)) is not None and value is not False:
                raise ValueError(f"{type(self).__name__}: {REFUSED[name]}")
        return forward(self, *args, output_hidden_states=output_hidden_states, **kwargs)

    return wrapper


def takes_text_inputs(forward: Callable) -> Callable:
    """Name the inputs of `TEXT_INPUTS` in the signature of `forward`: `Trainer` drops columns that it does not name."""
    signature = inspect.signature(forward)
    *parameters, keywords = signature.parameters.values()
    parameters += [keywords.replace(name=name, kind=keywords.KEYWORD_ONLY, default=None) for name in TEXT_INPUTS]
    forward.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by `inspect`
    return forward
