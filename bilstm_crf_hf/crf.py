"""A linear-chain conditional random field (Lafferty, McCallum and Pereira, 2001) that extends pytorch-crf's.

Letters in shapes: T timesteps, B sequences, K tags, N best paths. Inside, tensors are time-major and every sequence
begins at timestep 0, so that no recursion needs a mask: what lies behind a sequence's end is never read.

This file is copied into exported model repositories: it imports torch, pytorch-crf and its own kind.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .lattice import IMPOSSIBLE, Potentials, best_path, best_paths, forward_backward, inside

try:
    from torchcrf import CRF
except ImportError as error:
    raise ImportError("LinearChainCRF extends pytorch-crf: pip install pytorch-crf (not 'torchcrf')") from error

UNKNOWN = -100
"""In tags: a position whose tag is not known and summed over. In paths: outside of the sequence."""


class LinearChainCRF(CRF):
    """`torchcrf.CRF` with an exact gradient of its own, n-best paths, marginals, constraints and unknown tags.

    The parameters, their names and the signatures of `forward` and `decode` are pytorch-crf's, so that it is a drop-in
    and state dicts load either way. It computes in float64 where the device has it (else float32) whatever the dtype
    of the emissions and whatever autocast says, and returns float32 (float64 for float64 emissions). Masks must be
    prefixes: a sequence begins at the first timestep and has no holes.

    Args:
        num_tags: K.
        batch_first: whether tensors are (B, T, ...) instead of (T, B, ...).
        labels: the K names of the tags. Given BIO or BIOES names, starts, ends and transitions that cannot occur in
            the scheme have probability zero, in the loss as in decoding. Other names constrain nothing.

    Raises:
        ValueError: `num_tags` is not positive or not the number of `labels`.
    """

    def __init__(self, num_tags: int, batch_first: bool = False, labels: Sequence[str] | None = None) -> None:
        super().__init__(num_tags, batch_first)
        if labels is not None and len(labels) != num_tags:
            raise ValueError(f"{len(labels)} labels for {num_tags} tags")
        self.labels = None if labels is None else tuple(labels)
        for name, possible in zip(("start", "end", "transition"), possible_steps(labels or ["O"] * num_tags)):
            self.register_buffer(f"{name}_possible", possible, persistent=False)
        self.register_buffer("continues", continuations(labels or ["O"] * num_tags), persistent=False)

    def __repr__(self) -> str:
        return f"CRF(num_tags={self.num_tags})"  # as pytorch-crf's, whose tests ask for it

    def reset_constraints(self) -> None:
        """Fill the constraint buffers anew, for a module whose buffers were allocated without being initialised."""
        labels = self.labels or ["O"] * self.num_tags
        for buffer, value in zip(
            (self.start_possible, self.end_possible, self.transition_possible, self.continues),
            (*possible_steps(labels), continuations(labels)),
        ):
            buffer.copy_(value)

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None, reduction: str = "sum") -> Tensor:
        """The log-likelihood of `tags`.

        Args:
            emissions: (T, B, K), or (B, T, K) with `batch_first`, as all of the following.
            tags: (T, B), int64 or int32; -100 is an unknown tag, over whose values the likelihood is summed.
            mask: (T, B), true (or 1) on the timesteps of a sequence. Default: all.
            reduction: `none`, `sum`, `mean` over sequences, or `token_mean`.

        Returns:
            (B,) for the reduction `none`, else a scalar.

        Raises:
            ValueError: shapes that do not match, an unknown reduction; on CPU also a mask that is no prefix and a tag
                outside of [0, K). Elsewhere these two are asserted on the device, without a synchronisation.
        """
        self._validate(emissions, tags=tags, mask=mask)
        if reduction not in ("none", "sum", "mean", "token_mean"):
            raise ValueError(f"invalid reduction: {reduction}")
        scores, lengths = self._inward(emissions.detach(), mask)
        if self.batch_first:
            emissions, tags = emissions.transpose(0, 1), tags.transpose(0, 1)
        known = (tags == UNKNOWN) | ((tags >= 0) & (tags < self.num_tags)) | ~inside(len(tags), lengths)
        _check(known, f"tags must be in [0, {self.num_tags}) or {UNKNOWN} for unknown")
        with torch.autocast(emissions.device.type, enabled=False):
            log_likelihood = _LogLikelihood.apply(emissions, scores, tags, lengths, *self.potentials(scores.dtype))
            log_likelihood = log_likelihood.to(_result_dtype(emissions))
        if reduction == "none":
            return log_likelihood
        if reduction == "mean":
            return log_likelihood.mean()
        return log_likelihood.sum() / (lengths.sum() if reduction == "token_mean" else 1)

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The best path of each sequence: (T, B), or (B, T) with `batch_first`; -100 behind a sequence's end, and where
        no path is possible."""
        self._validate(emissions, mask=mask)
        scores, lengths = self._inward(emissions, mask)
        path, total = best_path(scores, lengths, self.potentials(scores.dtype))
        path = path.masked_fill(~(inside(len(scores), lengths) & total.isfinite()), UNKNOWN)
        return path.T if self.batch_first else path

    @torch.no_grad()
    def nbest(self, emissions: Tensor, mask: Tensor | None = None, k: int = 2) -> tuple[Tensor, Tensor]:
        """The k best paths of each sequence, best first.

        Returns:
            paths: (k, T, B), or (k, B, T) with `batch_first`; -100 behind a sequence's end, and throughout where a
                sequence has fewer than k possible paths.
            scores: (k, B), the unnormalised log-scores; -inf where there is no such path.

        Raises:
            ValueError: as `forward`; `k` is not positive.
        """
        if k < 1:
            raise ValueError(f"the number of paths must be positive, got {k}")
        self._validate(emissions, mask=mask)
        scores, lengths = self._inward(emissions, mask)
        paths, totals = best_paths(scores, lengths, self.potentials(scores.dtype), k)
        exists = inside(len(scores), lengths) & totals.isfinite()[:, None]
        paths = paths.masked_fill(~exists, UNKNOWN)
        return paths.transpose(1, 2) if self.batch_first else paths, totals.to(_result_dtype(emissions))

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> list[list[int]]:
        """The best path of each sequence as lists of its own length, as pytorch-crf gives them."""
        paths = self.viterbi(emissions, mask)
        rows = (paths if self.batch_first else paths.transpose(0, 1)).tolist()
        return [[tag for tag in row if tag != UNKNOWN] for row in rows]

    @torch.no_grad()
    def marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The posterior probability of each tag at each timestep, in the shape of `emissions`; 0 outside the mask."""
        self._validate(emissions, mask=mask)
        scores, lengths = self._inward(emissions, mask)
        lattice = forward_backward(scores, lengths, self.potentials(scores.dtype))
        outside = ~inside(len(scores), lengths)[..., None]
        probabilities = lattice.log_posterior().exp().masked_fill(outside, 0).to(_result_dtype(emissions))
        return probabilities.transpose(0, 1) if self.batch_first else probabilities

    @torch.no_grad()
    def posterior(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """All that inference asks for, from one pair of recursions.

        Returns:
            log_marginals: the logarithm of `marginals`, at least -1e4 so that it fits every dtype; 0 outside the mask.
            paths: as `viterbi`.
            path_log_probs: the shape of `paths` with a last dimension of 3. For the tag y of the best path at timestep
                t: log P(y_t), log P(y_t | y_t-1), and log P(y_t+1 does not continue the entity of y_t | y_t). Since the
                chain is Markov, the probability that there is exactly this entity from s to e, is exp of the first at
                s plus the second at s+1..e plus the third at e. 0 outside the mask.
        """
        self._validate(emissions, mask=mask)
        scores, lengths = self._inward(emissions, mask)
        potentials = self.potentials(scores.dtype)
        lattice = forward_backward(scores, lengths, potentials)
        within = inside(len(scores), lengths)
        log_marginals = lattice.log_posterior().clamp(min=-1e4).masked_fill(~within[..., None], 0)
        paths, _ = best_path(scores, lengths, potentials)
        path_log_probs = _path_log_probs(
            log_marginals, lattice.log_ahead(), paths, within, potentials.transitions, self.continues
        )
        dtype = _result_dtype(emissions)
        outward = (log_marginals.to(dtype), paths.masked_fill(~within, UNKNOWN), path_log_probs.to(dtype))
        return tuple(x.transpose(0, 1) for x in outward) if self.batch_first else outward

    def _validate(self, emissions: Tensor, tags: Tensor | None = None, mask: Tensor | None = None) -> None:
        super()._validate(emissions, tags=tags)
        if mask is None:
            return
        if emissions.shape[:2] != mask.shape:
            raise ValueError(
                "the first two dimensions of emissions and mask must match, "
                f"got {tuple(emissions.shape[:2])} and {tuple(mask.shape)}"
            )
        mask = (mask.transpose(0, 1) if self.batch_first else mask).bool()
        _check(mask[:1], "mask of the first timestep must all be on")
        _check(mask[:-1] | ~mask[1:], "mask must be a prefix of each sequence: it has a hole")

    def _inward(self, emissions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Emissions (T, B, K) in the dtype of the computation, 0 outside the mask, and lengths (B,)."""
        if self.batch_first:
            emissions = emissions.transpose(0, 1)
        emissions = emissions.to(torch.float32 if emissions.device.type == "mps" else torch.float64)
        emissions = emissions.clamp(min=IMPOSSIBLE)  # of -inf, the difference of two would be NaN
        if mask is None:
            return emissions, torch.full(emissions.shape[1:2], len(emissions), device=emissions.device)
        lengths = mask.bool().sum(1 if self.batch_first else 0)
        return emissions.masked_fill_(~inside(len(emissions), lengths)[..., None], 0), lengths

    def potentials(self, dtype: torch.dtype) -> Potentials:
        """The transition scores, impossible where the labels forbid it."""
        return Potentials(
            self.start_transitions.to(dtype).masked_fill(~self.start_possible, IMPOSSIBLE),
            self.end_transitions.to(dtype).masked_fill(~self.end_possible, IMPOSSIBLE),
            self.transitions.to(dtype).masked_fill(~self.transition_possible, IMPOSSIBLE),
        )


def possible_steps(labels: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Which starts (K,), ends (K,) and transitions (K, K) the scheme of BIO or BIOES `labels` allows, as booleans.

    I-X and E-X follow B-X or I-X only, except where no label B-X opens the type; if any label begins with E-, nothing
    but I-X and E-X follows B-X and I-X. All else is free.
    """
    opened = {label[2:] for label in labels if label[:2] == "B-"}
    bioes = any(label[:2] == "E-" for label in labels)
    continues = continuations(labels)
    needs_opening = torch.tensor([label[:2] in ("I-", "E-") and label[2:] in opened for label in labels])
    stays_open = torch.tensor([bioes and label[:2] in ("B-", "I-") and label[2:] in opened for label in labels])
    free = ~needs_opening[None, :] & ~stays_open[:, None]
    return ~needs_opening, ~stays_open, continues | free


def continuations(labels: Sequence[str]) -> Tensor:
    """(K, K) booleans: whether tag j, behind tag i, continues the entity of tag i."""
    return torch.tensor(
        [[a[:2] in ("B-", "I-") and b[:2] in ("I-", "E-") and a[2:] == b[2:] for b in labels] for a in labels]
    )


def _check(holds: Tensor, message: str) -> None:
    """Raise ValueError unless all of `holds` is true; off the CPU, assert so without waiting for the device."""
    if holds.device.type != "cpu":
        torch._assert_async(holds.all(), message)
    elif not holds.all():
        raise ValueError(message)


def _result_dtype(emissions: Tensor) -> torch.dtype:
    return torch.promote_types(emissions.dtype, torch.float32)


class _LogLikelihood(torch.autograd.Function):
    """log P(tags) (B,) with its gradient: what is expected given the known tags less what is expected at all.

    `emissions` (T, B, K) receive the gradient; `scores` are the same in the dtype of the computation.
    """

    @staticmethod
    def forward(ctx, emissions: Tensor, scores: Tensor, tags: Tensor, lengths: Tensor, *potentials: Tensor) -> Tensor:
        # Asking whether there are unknown tags would make the host wait, so that off the CPU it is always possible.
        known = scores.device.type == "cpu" and not ((tags == UNKNOWN) & inside(len(tags), lengths)).any()
        ctx.likelihood = (_Known if known else _PartlyKnown)(scores, tags, lengths, Potentials(*potentials))
        ctx.last, ctx.dtype = lengths - 1, emissions.dtype
        return ctx.likelihood.value.clone()  # a tensor that the context held would hold the context

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("LinearChainCRF has no second derivative: call backward without create_graph")
        tags, pairs = ctx.likelihood.gradient(grad)
        last = tags.gather(0, ctx.last[None, :, None].expand_as(tags[:1]))[0]
        return tags.to(ctx.dtype), None, None, None, tags[0].sum(0), last.sum(0), pairs


class _Known:
    """The log-likelihood of a path: its score less log Z."""

    def __init__(self, scores: Tensor, tags: Tensor, lengths: Tensor, potentials: Potentials) -> None:
        self.lattice = forward_backward(scores, lengths, potentials)
        self.within = inside(len(tags), lengths)
        self.tags = tags = tags.masked_fill(~self.within, 0)
        emitted = scores.gather(2, tags[..., None])[..., 0] * self.within
        moved = potentials.transitions[tags[:-1], tags[1:]] * self.within[1:]
        last = tags.gather(0, (lengths - 1)[None])[0]
        path = emitted.sum(0) + moved.sum(0) + potentials.start[tags[0]] + potentials.end[last]
        self.value = path - self.lattice.log_z

    def gradient(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """By emissions, (T, B, K), and by transitions, (K, K), of the values weighted with `weights` (B,)."""
        tags, pairs = self.lattice.expectations(-weights)
        weights = weights.to(tags.dtype) * self.within  # (T, B)
        tags.scatter_add_(2, self.tags[..., None], weights[..., None])
        pairs.index_put_((self.tags[:-1], self.tags[1:]), weights[1:], accumulate=True)
        return tags, pairs


class _PartlyKnown:
    """The log-likelihood of all paths that agree with the known tags: log Z of these less log Z, run as one batch."""

    def __init__(self, scores: Tensor, tags: Tensor, lengths: Tensor, potentials: Potentials) -> None:
        every_tag = torch.arange(scores.shape[2], device=tags.device)
        settled = (tags != UNKNOWN) & inside(len(tags), lengths)
        contradicts = settled[..., None] & (tags[..., None] != every_tag)
        agreeing = scores.masked_fill(contradicts, IMPOSSIBLE)
        self.lattice = forward_backward(torch.cat([agreeing, scores], 1), lengths.repeat(2), potentials)
        agreeing, whole = self.lattice.log_z.chunk(2)
        self.value = agreeing - whole

    def gradient(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """As that of [`_Known`]."""
        tags, pairs = self.lattice.expectations(torch.cat([weights, -weights]))
        return sum(tags.chunk(2, 1)), pairs


def _path_log_probs(
    log_marginals: Tensor, log_ahead: Tensor, paths: Tensor, within: Tensor, transitions: Tensor, continues: Tensor
) -> Tensor:
    """log P(y_t), log P(y_t | y_t-1), log P(y_t+1 does not continue y_t | y_t) along `paths`: (T, B, 3)."""
    unary = log_marginals.gather(2, paths[..., None])[..., 0]
    # log P(y_t+1 = j | y_t) for every j: (T - 1, B, K)
    after = (transitions[paths[:-1]] + log_ahead[1:]).log_softmax(-1)
    step = after.gather(2, paths[1:, :, None])[..., 0]
    leave = after.masked_fill(continues[paths[:-1]], -torch.inf).logsumexp(-1).clamp(min=-1e4)
    nothing = torch.zeros_like(unary[:1])
    leave = torch.cat([leave.masked_fill(~within[1:], 0), nothing])  # at its end, a sequence leaves every entity
    return torch.stack([unary, torch.cat([nothing, step]), leave], -1).masked_fill(~within[..., None], 0)
