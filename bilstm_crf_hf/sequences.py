"""The sequences of tokens in a padded batch, and the layers over them. This file is copied into exported repositories.

Letters in shapes: B sentences, S tokens with padding and special tokens, T tokens of the longest sequence without them,
D input size, H hidden size.
"""

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from .crf import LinearChainCRF
from .loops import accumulate

LSTM_ELEMENTS = 2**25
"""Number of elements of a tensor (T, B, D) or (T, B, H) that an LSTM reads or writes at a time. oneDNN, which runs it
on the CPU, fails on four times as many of one sentence; a usual batch has fewer."""

DIRECTIONS: ContextVar[Callable[..., tuple[Tensor, Tensor]] | None] = ContextVar("DIRECTIONS", default=None)
"""Function of a [`BiLSTMLayer`] and its two inputs that runs its directions: a training on CPUs has threads for them.
As an attribute of the layers, it would hinder their copying and saving."""


class Sequences:
    """The sequences in a padded batch: the tokens of each sentence that are attended to and not special.

    They are derived from the ids alone, so that they are the same in training and in inference, on either side of
    padding, with and without special tokens. Each sequence is moved to the timesteps from 0 on.

    Raises:
        ValueError: if `input_ids` are not integers (B, S), or if `attention_mask` has another shape.

    Attributes:
        chosen: (B, S), true for the tokens of the sequences.
        inside: (T, B), true for the timesteps of the sequences.
        mask: (T, B), for the CRF, in which a sentence without tokens has one timestep, since none may be empty.
        lengths: (B,), numbers of tokens of the sequences.
    """

    def __init__(self, input_ids: Tensor, attention_mask: Tensor | None, special: Iterable[int]) -> None:
        check_inputs(input_ids, attention_mask)
        chosen = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        for token_id in special:
            chosen = chosen & (input_ids != token_id)
        self.arrange(chosen)

    def arrange(self, chosen: Tensor) -> None:
        """Set the attributes for the tokens that take part, (B, S)."""
        self.chosen = chosen
        positions = torch.arange(chosen.shape[1], device=chosen.device)
        self.order = torch.where(chosen, positions, positions + chosen.shape[1]).argsort(1)  # (B, S), chosen ones first
        self.lengths = chosen.sum(1)
        # Elsewhere the host would have to wait for the length; in an exported graph it would depend on the data.
        if chosen.device.type == "cpu" and not torch.compiler.is_compiling():
            self.order = self.order[:, : max(1, int(self.lengths.max()))]
        steps = torch.arange(self.order.shape[1], device=chosen.device)[:, None]
        self.inside = steps < self.lengths
        self.mask = self.inside | (steps == 0)
        sources = torch.where(self.inside, self.lengths - 1 - steps, steps)  # (T, B)
        batch = chosen.shape[0]  # not `len`, which `torch.export` takes for a constant
        rows = torch.arange(batch, device=chosen.device)
        self.reversal = (sources * batch + rows).flatten()  # of tensors seen as (T * B, D)

    def pack(self, values: Tensor) -> Tensor:
        """Move the values (B, S, ...) of each sequence to the timesteps from 0 on, (T, B, ...)."""
        return values.gather(1, broadcast(self.order, values)).transpose(0, 1)

    def unpack(self, values: Tensor, fill: float = 0) -> Tensor:
        """Move the values (T, B, ...) back to the places of their tokens, (B, S, ...), with `fill` elsewhere."""
        spread = values.transpose(0, 1).gather(1, broadcast(self.ranks, values))
        return spread.masked_fill(broadcast(~self.chosen, values), fill)

    @cached_property
    def ranks(self) -> Tensor:
        """Return the timestep of each chosen token, and for others that of the last one before them, (B, S)."""
        return (self.chosen.cumsum(1) - 1).clamp(min=0)

    # What a CRF says of timesteps, (B, S, ...) at their places, as labels and probabilities of all tokens. The units
    # of the chain are the tokens here; `words.WordSequences` overrides these.

    def labels_of_tokens(self, labels: Tensor, crf: LinearChainCRF) -> Tensor:
        """Return the labels of all tokens, (B, S)."""
        return labels

    def log_marginals_of_tokens(self, log_marginals: Tensor, crf: LinearChainCRF) -> Tensor:
        """Return the log-probabilities of the labels of all tokens, (B, S, K)."""
        return log_marginals

    def log_probs_of_tokens(self, log_probs: Tensor) -> Tensor:
        """Return the log-probabilities along the path of all tokens, (B, S, 3), see `LinearChainCRF.posterior`."""
        return log_probs

    def reverse(self, values: Tensor) -> Tensor:
        """Return (T, B, D) with each sequence reversed in its place; padding stays where it is."""
        return _Reversal.apply(values, self.reversal)


def check_inputs(input_ids: Tensor, attention_mask: Tensor | None) -> None:
    """Raise a ValueError if the inputs of a model have no valid shape or type."""
    if torch.compiler.is_compiling():
        return
    if not isinstance(input_ids, Tensor):
        raise ValueError(f"input_ids must be a tensor, got {type(input_ids).__name__}")
    shape = tuple(input_ids.shape)
    if len(shape) != 2 or 0 in shape or input_ids.is_floating_point():
        got = f"{input_ids.dtype} of shape {shape}"
        raise ValueError(f"input_ids must be integers of shape (B, S), for B texts of S tokens, got {got}")
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        raise ValueError(f"attention_mask must have the shape of input_ids, {shape}, got {tuple(attention_mask.shape)}")


def broadcast(matrix: Tensor, values: Tensor) -> Tensor:
    """Expand `matrix` by the dimensions of `values` from the third on; `torch.export` fails in `take_along_dim`."""
    return matrix.view(*matrix.shape, *(1,) * (values.dim() - 2)).expand(*matrix.shape, *values.shape[2:])


class _Reversal(torch.autograd.Function):
    """Permutation of the rows of (T, B, D) by `rows`, its own inverse; much faster than `gather` and its gradient."""

    @staticmethod
    def forward(ctx, values: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return values.flatten(0, 1).index_select(0, rows).view(values.shape)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _Reversal.apply(grad, *ctx.saved_tensors), None


def sequence_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | list[int]]:
    """Return the fields of a configuration that tell [`Sequences`] the padding and special tokens.

    Raises:
        ValueError: if the tokenizer has no padding token.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no padding token: set tokenizer.pad_token")
    special = sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})  # an unknown token is one of the text
    return {"pad_token_id": tokenizer.pad_token_id, "special_token_ids": special}


class LockedDropout(nn.Module):
    """Dropout with one mask for all timesteps of a sequence, over (T, B, D)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return x * nn.functional.dropout(torch.ones_like(x[:1]), self.p)


def _lstm_steps(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """Compute the output of `lstm` for (T, B, D) from PyTorch's own operators for one timestep."""
    input_weight, weight, input_bias, bias = lstm.parameters()
    inputs = nn.functional.linear(x, input_weight, input_bias + bias)

    def step(state: Tensor, entering: Tensor) -> Tensor:
        hidden, cell = state.chunk(2, -1)
        i, f, g, o = (entering + hidden @ weight.T).chunk(4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return torch.cat([o.sigmoid() * cell.tanh(), cell], -1)

    state = inputs.new_zeros(x.shape[1], 2 * lstm.hidden_size)
    return accumulate(step, state, inputs)[1:, :, : lstm.hidden_size]


class BiLSTMLayer(nn.Module):
    """One bidirectional LSTM layer, (T, B, D) for either direction to (T, B, H), that padding does not change.

    Sequences begin at timestep 0, so the forward direction meets the padding last. The backward direction reads each
    sequence reversed in its place. Both run at the speed of the plain padded kernel; `pack_padded_sequence` is several
    times slower to train on CPU. The two `input_sizes` are D; H, `hidden_size`, is that of both directions together.
    """

    def __init__(self, input_sizes: tuple[int, int], hidden_size: int) -> None:
        super().__init__()
        self.forward_lstm = nn.LSTM(input_sizes[0], hidden_size // 2)
        self.backward_lstm = nn.LSTM(input_sizes[1], hidden_size // 2)
        self.piece = LSTM_ELEMENTS // max(*input_sizes, hidden_size)  # timesteps times sentences

    @torch.compiler.disable
    def forward(self, inputs: tuple[Tensor, Tensor], sequences: Sequences) -> Tensor:
        ahead, behind = self.run_directions(inputs[0], sequences.reverse(inputs[1]))
        return torch.cat([ahead, sequences.reverse(behind)], -1)

    def run_directions(self, ahead: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of the two directions, by [`DIRECTIONS`] if that is set."""
        run = DIRECTIONS.get()
        if run is not None and not torch.compiler.is_compiling():
            return run(self, ahead, behind)
        return self.run_lstm(self.forward_lstm, ahead), self.run_lstm(self.backward_lstm, behind)

    def run_lstm(self, lstm: nn.LSTM, x: Tensor) -> Tensor:
        """Return the output of `lstm` for (T, B, D), computed in pieces of timesteps that pass on its state."""
        if torch.compiler.is_compiling():
            return _lstm_steps(lstm, x)
        timesteps = max(1, self.piece // x.shape[1])
        if len(x) <= timesteps:
            return lstm(x)[0]
        outputs, state = [], None
        for piece in x.split(timesteps):
            output, state = lstm(piece, state)
            outputs.append(output)
        return torch.cat(outputs)
