"""A linear-chain conditional random field (Lafferty, McCallum and Pereira, 2001) that extends pytorch-crf's.

Letters in shapes: T timesteps, B sequences, K tags, S = K + 1 states: the tags and, last, the boundary, see `lattice`.
Internal tensors are time-major. This file is copied into exported model repositories.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .alignment import IGNORED, continues_entity, within_words
from .lattice import add_boundary, best_path, best_paths, can_use_scaling, forward_backward
from .recursions import IMPOSSIBLE
from .recursions import decode as decode_arrays

try:
    from torchcrf import CRF
except ImportError as error:
    raise ImportError(
        "LinearChainCRF needs pytorch-crf: run `pip install pytorch-crf` (not `torchcrf`, a different package)"
    ) from error


class LinearChainCRF(CRF):
    """A drop-in replacement of `torchcrf.CRF` with constraints, unknown tags, n-best paths and exact marginals.

    The parameters, their names and the signatures of `forward` and `decode` are those of pytorch-crf, and state dicts
    load in both directions. Gradients are computed from expected counts instead of by autograd. Computation is in
    float64 (in float32 on MPS, which has no float64) for emissions of any dtype and under autocast; results are
    float32, or float64 for float64 emissions.

    All methods take `emissions`, (T, B, K), and a `mask`, (T, B), true (or 1) on the timesteps of a sequence, which
    begin at the first timestep and have no holes (default: all timesteps). With `batch_first`, the dimensions T and B
    of arguments and results are swapped. A ValueError is raised if shapes do not match, if an option is invalid and, on
    the CPU, if a mask has holes, if a tag is out of range, or if decoded emissions are NaN or +inf. On other devices
    the latter three are device-side assertions, so that the host does not wait.

    Args:
        labels: the K names of the tags. If they are BIO or BIOES tags, starts, ends and transitions that the scheme
            forbids have probability zero, in the loss as in decoding. Other names constrain nothing.
        constrained: whether the scheme of the labels constrains the paths. If not, the labels only tell which tags
            continue an entity (see [`~LinearChainCRF.posterior`]).

    Attributes:
        temperature: positive number by which emissions, transitions, starts and ends are divided in evaluation wherever
            probabilities are computed, which calibrates them (Guo et al., 2017). Best paths and scores of paths are
            computed without it, and so is everything in training. Default: 1.

    Raises:
        ValueError: if `num_tags` is not positive or not the number of `labels`.
    """

    possible: Tensor
    continues: Tensor
    opened: Tensor
    continued: Tensor

    def __init__(
        self, num_tags: int, batch_first: bool = False, labels: Sequence[str] | None = None, constrained: bool = True
    ) -> None:
        super().__init__(num_tags, batch_first)
        if labels is not None and len(labels) != num_tags:
            raise ValueError(f"got {len(labels)} labels for {num_tags} tags: give one label for each tag")
        self.labels = None if labels is None else tuple(labels)
        self.constrained = constrained
        self.temperature = 1.0
        for name, values in self._constraints().items():
            self.register_buffer(name, values, persistent=False)

    def __repr__(self) -> str:
        return f"CRF(num_tags={self.num_tags})"  # pytorch-crf's tests expect this name

    def reset_constraints(self) -> None:
        """Fill the constraint buffers again, for a module whose buffers were allocated but not initialised."""
        for name, values in self._constraints().items():
            self.get_buffer(name).copy_(values)

    def set_labels(self, labels: Sequence[str], constrained: bool) -> None:
        """Set the names of the tags and whether they constrain the paths; do nothing if they are the same already."""
        if (tuple(labels), constrained) != (self.labels, self.constrained):
            self.labels, self.constrained = tuple(labels), constrained
            self.reset_constraints()

    def _constraints(self) -> dict[str, Tensor]:
        """Return the buffers that follow from the labels.

        They say which transitions between states are possible, and which continue an entity, both (S, S), and what
        the labels of words are for parts of words, both (K,), see `alignment.within_words`.
        """
        # Starts and ends are possible where a transition from O and to O is: the boundary behaves like the label O.
        states = [*(self.labels or ["O"] * self.num_tags), "O"]
        possible = allowed_transitions(states) | (not self.constrained)
        opened, continued = map(torch.tensor, within_words(states[:-1]))
        continues = entity_continuations(states)
        return {"possible": possible, "continues": continues, "opened": opened, "continued": continued}

    @torch.compiler.disable
    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None, reduction: str = "sum") -> Tensor:
        """Return the log-likelihood of `tags`.

        Args:
            emissions: (T, B, K).
            tags: (T, B), int64 or int32 in [0, K), or -100 for an unknown tag: the likelihood is the sum over its
                possible values (Tsuboi et al., 2008).
            mask: (T, B).
            reduction: `none` for a value for each sequence, (B,); `sum`, `mean` or `token_mean` for a scalar.
        """
        emissions, mask = self._to_time_major(emissions, mask, tags)
        if reduction not in ("none", "sum", "mean", "token_mean"):
            raise ValueError(f"invalid reduction: {reduction}")
        tags = (tags.transpose(0, 1) if self.batch_first else tags).long().masked_fill(~mask, 0)
        valid = (tags >= 0) & (tags < self.num_tags) | (tags == IGNORED)
        raise_unless(valid, f"tags must be in [0, {self.num_tags}) or {IGNORED} for unknown")
        with torch.autocast(emissions.device.type, enabled=False):
            parameters = self.start_transitions, self.end_transitions, self.transitions
            log_likelihood = _LogLikelihood.apply(self, emissions, mask, tags, *parameters)
            log_likelihood = log_likelihood.to(_result_dtype(emissions))
        if reduction == "none":
            return log_likelihood
        if reduction == "mean":
            return log_likelihood.mean()
        return log_likelihood.sum() / (mask.sum() if reduction == "token_mean" else 1)

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the best path of each sequence, (T, B); -100 after its end, and everywhere if no path is possible."""
        return self._path_tags(*best_path(*self._state_scores(*self._to_time_major(emissions, mask))))

    @torch.no_grad()
    def nbest(self, emissions: Tensor, mask: Tensor | None = None, k: int = 2) -> tuple[Tensor, Tensor]:
        """Return the k best paths of each sequence, best first; a `k` below 1 is an error.

        Returns:
            paths: (k, T, B), as `viterbi` returns them; a sequence may have fewer than k possible paths.
            scores: (k, B), the unnormalised log-scores; -inf for missing paths.
        """
        if k < 1:
            raise ValueError(f"the number of paths must be positive, got {k}")
        paths, totals = best_paths(*self._state_scores(*self._to_time_major(emissions, mask)), k)
        return torch.stack([self._path_tags(*path) for path in zip(paths, totals)]), totals.to(_result_dtype(emissions))

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> list[list[int]]:
        """Return the best path of each sequence as a list of its own length, as pytorch-crf does."""
        paths = self.viterbi(emissions, mask)
        rows = (paths if self.batch_first else paths.transpose(0, 1)).tolist()
        return [[tag for tag in row if tag != IGNORED] for row in rows]

    @torch.no_grad()
    def marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the posterior probability of each tag, in the shape of `emissions`; 0 outside the mask."""
        dtype = _result_dtype(emissions)
        emissions, mask = self._to_time_major(emissions, mask)
        emissions, transitions = self._calibrated(emissions, self.potentials())
        lattice = forward_backward(emissions, mask, transitions)
        return self._from_time_major(lattice.log_marginals().exp()[..., :-1]).to(dtype)

    @torch.compiler.disable
    @torch.no_grad()
    def posterior(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return marginals, best paths and the probabilities of entities, from one forward-backward pass.

        `path_log_probs` holds, for the tag y_t of the best path at timestep t: log P(y_t), log P(y_t | y_t-1), and
        log P(y_t+1 does not continue the entity of y_t | y_t). As the chain is Markov, the log-probability that the
        sequence has exactly this entity from timestep s to e is the first value at s, plus the second at s + 1, ..., e,
        plus the third at e (constrained forward-backward, Culotta and McCallum, 2004).

        Returns:
            log_marginals: the logarithm of `marginals`, at least -1e4, which every dtype can hold; 0 outside the mask.
            paths: the result of `viterbi`.
            path_log_probs: the shape of `paths` with a last dimension of 3; 0 outside the mask.
        """
        dtype = _result_dtype(emissions)
        emissions, mask = self._to_time_major(emissions.detach(), mask)
        scores, transitions = self._state_scores(emissions, mask)
        path, total = best_path(scores, transitions)  # (T + 2, B), (B,)
        emissions, transitions = self._calibrated(emissions, transitions)
        lattice = forward_backward(emissions, mask, transitions)
        log_marginals = lattice.log_marginals().clamp_(min=-1e4)  # (T + 2, B, S)
        marginal = log_marginals.gather(2, path[..., None])[..., 0]  # (T + 2, B)
        following = (transitions[path[:-1]] + lattice.log_backward()[1:]).log_softmax(-1)  # log P(y_t+1 = j | y_t)
        step = following.gather(2, path[1:, :, None])[..., 0]  # (T + 1, B)
        leave = following.masked_fill(self.continues[path[:-1]], -torch.inf).logsumexp(-1).clamp(min=-1e4)  # (T + 1, B)
        zero = torch.zeros_like(marginal[:1])
        path_log_probs = torch.stack([marginal, torch.cat([zero, step]), torch.cat([leave, zero])], -1)
        edge = torch.zeros_like(mask[:1])
        outside_mask = torch.cat([edge, ~mask, edge])[..., None]  # (T + 2, B, 1)
        return (
            self._from_time_major(log_marginals[..., :-1].masked_fill(outside_mask, 0).to(dtype)),
            self._path_tags(path, total),
            self._from_time_major(path_log_probs.masked_fill(outside_mask, 0).to(dtype)),
        )

    @torch.compiler.disable
    @torch.no_grad()
    def path_posterior(self, emissions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last two results of [`posterior`], in less time since the marginals of other tags are left out.

        On the CPU, the mask is not checked: each sequence is as long as its number of true timesteps.
        """
        if emissions.device.type != "cpu" or torch.compiler.is_compiling():
            return self.posterior(emissions, mask)[1:]
        dtype = _result_dtype(emissions)
        if self.batch_first:
            emissions, mask = emissions.transpose(0, 1), mask.transpose(0, 1)
        crf = self.potentials().numpy(), self.continues.numpy(), self.applied_temperature
        paths, log_probs = map(torch.from_numpy, decode_arrays(emissions.to(dtype).numpy(), mask.sum(0).numpy(), *crf))
        if self.batch_first:
            paths, log_probs = paths.transpose(0, 1), log_probs.transpose(0, 1)
        return paths, log_probs.to(dtype)

    def _to_time_major(
        self, emissions: Tensor, mask: Tensor | None, tags: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Validate the arguments of a method; return emissions (T, B, K) and a boolean mask (T, B)."""
        self._validate(emissions, tags=tags)
        if mask is None:
            mask = torch.ones(emissions.shape[:2], dtype=torch.bool, device=emissions.device)
        elif emissions.shape[:2] != mask.shape:
            raise ValueError(
                "the first two dimensions of emissions and mask must match, "
                f"got {tuple(emissions.shape[:2])} and {tuple(mask.shape)}"
            )
        if self.batch_first:
            emissions, mask = emissions.transpose(0, 1), mask.transpose(0, 1)
        mask = mask.bool()
        raise_unless(mask[:1], "mask of the first timestep must all be on")
        raise_unless(mask[:-1] | ~mask[1:], "mask must be a prefix of each sequence: it has a hole")
        if tags is None:  # a loss of NaN may be wanted: mixed precision skips its step
            numbers = (emissions < torch.inf) | ~mask[..., None]
            raise_unless(numbers, "emissions are NaN or infinite: the weights of the model are damaged, load others")
        return emissions, mask

    def _from_time_major(self, x: Tensor) -> Tensor:
        """Drop the two boundary timesteps: (T + 2, B, ...) to (T, B, ...), or to (B, T, ...) with `batch_first`."""
        return x[1:-1].transpose(0, 1) if self.batch_first else x[1:-1]

    def _path_tags(self, path: Tensor, total: Tensor) -> Tensor:
        """Return `path` (T + 2, B) as a result, -100 at the boundary and everywhere if `total` (B,) is infinite."""
        return self._from_time_major(path.masked_fill((path == self.num_tags) | total.isinf(), IGNORED))

    def _state_scores(self, emissions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of all states, (T + 2, B, S), and of the transitions between them, (S, S)."""
        transitions = self.potentials()
        return add_boundary(emissions, mask, transitions.dtype), transitions

    @property
    def applied_temperature(self) -> float:
        """Return the temperature, or 1 in training."""
        return 1.0 if self.training else self.temperature

    def _calibrated(self, emissions: Tensor, transitions: Tensor) -> tuple[Tensor, Tensor]:
        """Return emissions (T, B, K) and transitions between states (S, S), divided by the temperature."""
        if (temperature := self.applied_temperature) == 1:
            return emissions, transitions
        divided = (transitions / temperature).masked_fill_(~self.possible, IMPOSSIBLE)
        return emissions.to(transitions.dtype) / temperature, divided

    def potentials(self) -> Tensor:
        """Return the scores of the transitions between states, (S, S), without gradient, in the most precise dtype.

        The last row holds the starts, the last column the ends. Transitions that the labels forbid are `IMPOSSIBLE`.
        """
        dtype = torch.float32 if self.transitions.device.type == "mps" else torch.float64
        scores = self.transitions.new_zeros(self.possible.shape, dtype=dtype)
        scores[:-1, :-1] = self.transitions.detach()
        scores[-1, :-1] = self.start_transitions.detach()
        scores[:-1, -1] = self.end_transitions.detach()
        return scores.masked_fill_(~self.possible, IMPOSSIBLE)


def allowed_transitions(labels: Sequence[str]) -> Tensor:
    """Return which transitions between tags the scheme of BIO or BIOES `labels` allows, (K, K) booleans.

    A tag may be at the start if it may follow O, and at the end if O may follow it. I-X and E-X may only follow B-X or
    I-X, unless the labels have no B-X. If any label begins with E-, only I-X and E-X may follow B-X and I-X. All other
    transitions are allowed.
    """
    opened = {label[2:] for label in labels if label[:2] == "B-"}
    bioes = any(label[:2] == "E-" for label in labels)
    needs_opening = torch.tensor([label[:2] in ("I-", "E-") and label[2:] in opened for label in labels])
    stays_open = torch.tensor([bioes and label[:2] in ("B-", "I-") and label[2:] in opened for label in labels])
    return entity_continuations(labels) | (~needs_opening[None, :] & ~stays_open[:, None])


def broken_step(possible: Tensor, tags: Sequence[int]) -> tuple[int, int] | None:
    """Return the indices of the first tag that cannot follow the known ones before it, and of the last of those.

    `possible` is the matrix of possible transitions between states, `tags` are those of one sequence, -100 if unknown.
    The index -1 stands for the boundary before the sequence, the length for that after it; None if all can follow.
    """
    known, reachable = -1, possible[-1]  # (S,): whether a state may come next
    for i, tag in enumerate([*tags, len(possible) - 1]):
        if tag == IGNORED:
            reachable = possible[:-1][reachable[:-1]].any(0)
        elif not reachable[tag]:
            return known, i
        else:
            known, reachable = i, possible[tag]
    return None


def entity_continuations(labels: Sequence[str]) -> Tensor:
    """Return whether tag j, when it follows tag i, continues the entity of tag i, (K, K) booleans."""
    return torch.tensor([[continues_entity(a, b) for b in labels] for a in labels])


def raise_unless(holds: Tensor, message: str) -> None:
    """Raise a ValueError unless `holds` is true everywhere; off the CPU, assert it without waiting for the device."""
    if torch.compiler.is_compiling():
        return  # an exported program raises no errors
    if holds.device.type != "cpu":
        torch._assert_async(holds.all(), message)
    elif not holds.all():
        raise ValueError(message)


def _result_dtype(emissions: Tensor) -> torch.dtype:
    return torch.promote_types(emissions.dtype, torch.float32)


class _LogLikelihood(torch.autograd.Function):
    """Log-likelihood of tags, (B,). Its gradient is the expected counts given the tags minus those without them."""

    @staticmethod
    def forward(ctx, crf: LinearChainCRF, emissions: Tensor, mask: Tensor, tags: Tensor, *_) -> Tensor:
        """Compute it for `tags` (T, B), 0 outside the mask; autograd gives gradients to the last three arguments."""
        ctx.possible, ctx.dtype, ctx.temperature = crf.possible, emissions.dtype, crf.applied_temperature
        emissions, transitions = crf._calibrated(emissions, crf.potentials())
        # Off the CPU, asking whether any tag is unknown would make the host wait: the general case runs.
        likelihood = _KnownTags if emissions.device.type == "cpu" and IGNORED not in tags else _PartialTags
        ctx.likelihood = likelihood(emissions, mask, transitions, tags)
        return ctx.likelihood.value.clone()  # if the context held the returned tensor, they would refer to each other

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to the emissions and the three parameters, weighted with `grad` (B,)."""
        if torch.is_grad_enabled():
            raise RuntimeError("LinearChainCRF has no second derivative: call backward without create_graph")
        emissions, transitions = ctx.likelihood.gradient(grad / ctx.temperature)
        transitions = transitions * ctx.possible
        parameters = transitions[-1, :-1], transitions[:-1, -1], transitions[:-1, :-1]
        return None, emissions.to(ctx.dtype), None, None, *parameters


class _KnownTags:
    """Log-likelihood of one path: its score minus log Z."""

    def __init__(self, emissions: Tensor, mask: Tensor, transitions: Tensor, tags: Tensor) -> None:
        self.lattice = forward_backward(emissions, mask, transitions)
        self.mask, self.tags = mask, tags[..., None]
        boundary = transitions.shape[0] - 1
        edge = tags.new_full((1, tags.shape[1]), boundary)
        path = torch.cat([edge, tags.masked_fill(~mask, boundary), edge])  # (T + 2, B)
        self.steps = path[:-1] * len(transitions) + path[1:]  # (T + 1, B), indices into the flattened transitions
        emitted = emissions.gather(2, self.tags)[..., 0].to(transitions.dtype).clamp_(min=IMPOSSIBLE)
        score = emitted.masked_fill_(~mask, 0).sum(0) + transitions.take(self.steps).sum(0)
        self.value = score - self.lattice.log_z  # (B,)

    def gradient(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient of `weights @ value` with respect to emissions (T, B, K) and transitions (S, S)."""
        states, transitions = self.lattice.expected_counts(-weights)
        emissions = states[1:-1, :, :-1]
        emissions.scatter_add_(2, self.tags, (weights * self.mask)[..., None])
        counts = self.steps.flatten().bincount(weights.expand_as(self.steps).flatten(), transitions.numel())
        return emissions, transitions + counts.view_as(transitions)


class _PartialTags:
    """Log-likelihood of all paths that agree with the known tags: their log Z minus that of all paths, in one batch."""

    def __init__(self, emissions: Tensor, mask: Tensor, transitions: Tensor, tags: Tensor) -> None:
        use_scaling = can_use_scaling(emissions, transitions)  # decided before tags become impossible
        every_tag = torch.arange(emissions.shape[2], device=tags.device)
        contradicts = (tags != IGNORED)[..., None] & (tags[..., None] != every_tag)  # (T, B, K)
        emissions = emissions.to(transitions.dtype)
        both = torch.cat([emissions.masked_fill(contradicts, IMPOSSIBLE), emissions], 1)  # (T, 2 B, K)
        self.lattice = forward_backward(both, mask.repeat(1, 2), transitions, use_scaling)
        agreeing, every_path = self.lattice.log_z.chunk(2)
        self.value = agreeing - every_path  # (B,)

    def gradient(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient of `weights @ value`, as [`_KnownTags.gradient`] does."""
        states, transitions = self.lattice.expected_counts(torch.cat([weights, -weights]))
        agreeing, every_path = states[1:-1, :, :-1].chunk(2, 1)
        return agreeing + every_path, transitions
