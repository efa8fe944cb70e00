"""A linear-chain conditional random field (Lafferty, McCallum and Pereira, 2001) that extends pytorch-crf's.

Letters in shapes: T timesteps, B sequences, K tags, S = K + 1 states: the tags and `outside`, the last, in which every
sequence begins and ends. Inside, tensors are time-major, with a timestep outside in front and one behind.

This file is copied into exported model repositories: it imports torch, pytorch-crf and its own kind.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .lattice import IMPOSSIBLE, best_path, best_paths, enclose, forward_backward, is_moderate

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
        constrained: false if the names are to constrain nothing, and just say what an entity is.

    Raises:
        ValueError: `num_tags` is not positive or not the number of `labels`.
    """

    def __init__(
        self,
        num_tags: int,
        batch_first: bool = False,
        labels: Sequence[str] | None = None,
        constrained: bool = True,
    ) -> None:
        super().__init__(num_tags, batch_first)
        if labels is not None and len(labels) != num_tags:
            raise ValueError(f"{len(labels)} labels for {num_tags} tags")
        self.labels = None if labels is None else tuple(labels)
        self.constrained = constrained
        possible, continues = self._constraints()
        self.register_buffer("possible", possible, persistent=False)
        self.register_buffer("continues", continues, persistent=False)

    def __repr__(self) -> str:
        return f"CRF(num_tags={self.num_tags})"  # as pytorch-crf's, whose tests ask for it

    def reset_constraints(self) -> None:
        """Fill the constraint buffers anew, for a module whose buffers were allocated without being initialised."""
        possible, continues = self._constraints()
        self.possible.copy_(possible)
        self.continues.copy_(continues)

    def _constraints(self) -> tuple[Tensor, Tensor]:
        """Which steps between states (S, S) are possible, and which continue an entity."""
        # To start and to end is possible where O may precede and follow.
        states = [*(self.labels or ["O"] * self.num_tags), "O"]
        return possible_steps(states) | (not self.constrained), continuations(states)

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
        emissions, inside = self._time_major(emissions, mask)
        tags = (tags.transpose(0, 1) if self.batch_first else tags).long().masked_fill(~inside, 0)
        unknown = tags == UNKNOWN
        known = (tags >= 0) & (tags < self.num_tags)
        _check(known | unknown, f"tags must be in [0, {self.num_tags}) or {UNKNOWN} for unknown")
        with torch.autocast(emissions.device.type, enabled=False):
            parameters = self.start_transitions, self.end_transitions, self.transitions
            log_likelihood = _LogLikelihood.apply(self, emissions, inside, tags, unknown, *parameters)
            log_likelihood = log_likelihood.to(_result_dtype(emissions))
        if reduction == "none":
            return log_likelihood
        if reduction == "mean":
            return log_likelihood.mean()
        return log_likelihood.sum() / (inside.sum() if reduction == "token_mean" else 1)

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The best path of each sequence: (T, B), or (B, T) with `batch_first`; -100 behind a sequence's end, and where
        no path is possible."""
        self._validate(emissions, mask=mask)
        path, total = best_path(*self._scores(*self._time_major(emissions, mask)))
        return self._outward(self._named(path, total))

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
        paths, totals = best_paths(*self._scores(*self._time_major(emissions, mask)), k)
        paths = torch.stack([self._outward(self._named(*path)) for path in zip(paths, totals)])
        return paths, totals.to(_result_dtype(emissions))

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> list[list[int]]:
        """The best path of each sequence as lists of its own length, as pytorch-crf gives them."""
        paths = self.viterbi(emissions, mask)
        rows = (paths if self.batch_first else paths.transpose(0, 1)).tolist()
        return [[tag for tag in row if tag != UNKNOWN] for row in rows]

    @torch.no_grad()
    def marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The posterior probability of each tag at each timestep, in the shape of `emissions`; 0 outside the mask."""
        self._validate(emissions, mask=mask)
        emissions, inside = self._time_major(emissions, mask)
        transitions = self._transitions(emissions)
        lattice = forward_backward(emissions, inside, transitions, is_moderate(emissions, transitions))
        return self._outward(lattice.log_posterior().exp()[..., :-1]).to(_result_dtype(emissions))

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
        dtype = _result_dtype(emissions)
        emissions, inside = self._time_major(emissions, mask)
        transitions = self._transitions(emissions)
        lattice = forward_backward(emissions, inside, transitions, is_moderate(emissions, transitions))
        log_marginals = lattice.log_posterior().clamp_(min=-1e4)
        path, total = best_path(enclose(emissions, inside, transitions.dtype), transitions)
        path_log_probs = _path_log_probs(log_marginals, lattice.log_ahead(), path, transitions, self.continues)
        outside = torch.nn.functional.pad(~inside, (0, 0, 1, 1))[..., None]
        return (
            self._outward(log_marginals[..., :-1].masked_fill(outside, 0).to(dtype)),
            self._outward(self._named(path, total)),
            self._outward(path_log_probs.masked_fill(outside, 0).to(dtype)),
        )

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

    def _time_major(self, emissions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Emissions (T, B, K), and which timesteps are within the sequences, (T, B) booleans."""
        if mask is None:
            mask = torch.ones(emissions.shape[:2], dtype=torch.bool, device=emissions.device)
        if self.batch_first:
            emissions, mask = emissions.transpose(0, 1), mask.transpose(0, 1)
        return emissions, mask.bool()

    def _outward(self, x: Tensor) -> Tensor:
        """(T + 2, B, ...) to (T, B, ...), or (B, T, ...) with `batch_first`."""
        return x[1:-1].transpose(0, 1) if self.batch_first else x[1:-1]

    def _named(self, path: Tensor, total: Tensor) -> Tensor:
        """The tags on a path (..., B) of states; -100 where it is outside, and throughout where none is possible."""
        return path.masked_fill((path == self.num_tags) | total.isinf(), UNKNOWN)

    def _scores(self, emissions: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Of all states, (T + 2, B, S), and of the transitions between them."""
        transitions = self._transitions(emissions)
        return enclose(emissions, inside, transitions.dtype), transitions

    def _transitions(self, emissions: Tensor) -> Tensor:
        return self.potentials(torch.float32 if emissions.device.type == "mps" else torch.float64)

    def potentials(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The scores of transitions between states, (S, S), impossible where the labels forbid it; no gradient.

        The last row is that of starts, the last column that of ends.
        """
        scores = self.transitions.new_zeros(self.possible.shape, dtype=dtype)
        scores[:-1, :-1] = self.transitions.detach()
        scores[-1, :-1] = self.start_transitions.detach()
        scores[:-1, -1] = self.end_transitions.detach()
        return scores.masked_fill_(~self.possible, IMPOSSIBLE)


def possible_steps(labels: Sequence[str]) -> Tensor:
    """Which transitions (K, K) the scheme of BIO or BIOES `labels` allows, as booleans.

    Starts are those that may follow O, ends those that O may follow. I-X and E-X follow B-X or I-X only, except where
    no label B-X opens the type; if any label begins with E-, nothing but I-X and E-X follows B-X and I-X. All else is
    free.
    """
    opened = {label[2:] for label in labels if label[:2] == "B-"}
    bioes = any(label[:2] == "E-" for label in labels)
    continues = continuations(labels)
    needs_opening = torch.tensor([label[:2] in ("I-", "E-") and label[2:] in opened for label in labels])
    stays_open = torch.tensor([bioes and label[:2] in ("B-", "I-") and label[2:] in opened for label in labels])
    free = ~needs_opening[None, :] & ~stays_open[:, None]
    return continues | free


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
    """log P(tags) (B,) with its gradient: what is expected given the known tags less what is expected at all."""

    @staticmethod
    def forward(
        ctx, crf: LinearChainCRF, emissions: Tensor, inside: Tensor, tags: Tensor, unknown: Tensor, *_
    ) -> Tensor:
        """Tags (T, B) as in `LinearChainCRF.forward`; then the parameters, which are passed to receive a gradient."""
        transitions = crf._transitions(emissions)
        # Asking whether there are unknown tags would make the host wait, so that off the CPU it is always possible.
        kind = _Known if emissions.device.type == "cpu" and not unknown.any() else _PartlyKnown
        moderate = is_moderate(emissions, transitions)
        ctx.likelihood = kind(emissions, inside, transitions, moderate, tags)
        ctx.possible, ctx.dtype = crf.possible, emissions.dtype
        return ctx.likelihood.value.clone()  # a tensor that the context held would hold the context

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("LinearChainCRF has no second derivative: call backward without create_graph")
        tags, steps = ctx.likelihood.gradient(grad)
        steps = steps * ctx.possible
        parameters = steps[-1, :-1], steps[:-1, -1], steps[:-1, :-1]
        return None, tags.to(ctx.dtype), None, None, None, *parameters


class _Known:
    """The log-likelihood of a path: its score less log Z."""

    def __init__(self, emissions: Tensor, inside: Tensor, transitions: Tensor, moderate: bool, tags: Tensor) -> None:
        self.lattice = forward_backward(emissions, inside, transitions, moderate)
        self.inside, self.tags = inside, tags[..., None]
        outside = transitions.shape[0] - 1
        path = torch.nn.functional.pad(tags.masked_fill(~inside, outside), (0, 0, 1, 1), value=outside)
        self.steps = path[:-1] * len(transitions) + path[1:]
        emitted = emissions.gather(2, self.tags)[..., 0].to(transitions.dtype).clamp_(min=IMPOSSIBLE)
        score = emitted.masked_fill_(~inside, 0).sum(0) + transitions.take(self.steps).sum(0)
        self.value = score - self.lattice.log_z

    def gradient(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """By emissions, (T, B, K), and by steps, (S, S), of the values weighted with `weights` (B,)."""
        states, steps = self.lattice.expectations(-weights)
        tags = states[1:-1, :, :-1]
        tags.scatter_add_(2, self.tags, (weights * self.inside)[..., None])
        counts = self.steps.flatten().bincount(weights.expand_as(self.steps).flatten(), steps.numel())
        return tags, steps + counts.view_as(steps)


class _PartlyKnown:
    """The log-likelihood of all paths that agree with the known tags: log Z of these less log Z, run as one batch."""

    def __init__(self, emissions: Tensor, inside: Tensor, transitions: Tensor, moderate: bool, tags: Tensor) -> None:
        every_tag = torch.arange(emissions.shape[2], device=tags.device)
        contradicts = (tags != UNKNOWN)[..., None] & (tags[..., None] != every_tag)
        emissions = emissions.to(transitions.dtype)
        both = torch.cat([emissions.masked_fill(contradicts, IMPOSSIBLE), emissions], 1)
        self.lattice = forward_backward(both, inside.repeat(1, 2), transitions, moderate)
        agreeing, whole = self.lattice.log_z.chunk(2)
        self.value = agreeing - whole

    def gradient(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """As that of [`_Known`]."""
        states, steps = self.lattice.expectations(torch.cat([weights, -weights]))
        return sum(states[1:-1, :, :-1].chunk(2, 1)), steps


def _path_log_probs(
    log_marginals: Tensor, log_ahead: Tensor, path: Tensor, transitions: Tensor, continues: Tensor
) -> Tensor:
    """log P(y_t), log P(y_t | y_t-1), log P(y_t+1 does not continue y_t | y_t) along `path`: (T + 2, B, 3)."""
    unary = log_marginals.gather(2, path[..., None])[..., 0]
    # log P(y_t+1 = j | y_t) for every j: (T + 1, B, S)
    after = (transitions[path[:-1]] + log_ahead[1:]).log_softmax(-1)
    step = after.gather(2, path[1:, :, None])[..., 0]
    leave = after.masked_fill(continues[path[:-1]], -torch.inf).logsumexp(-1).clamp(min=-1e4)
    nothing = torch.zeros_like(unary[:1])
    return torch.stack([unary, torch.cat([nothing, step]), torch.cat([leave, nothing])], -1)
