"""Forward-backward and Viterbi recursions of a linear-chain CRF. This file is copied into exported model repositories.

Letters in shapes: T timesteps, B sequences, K tags, S = K + 1 states, see `recursions`, which has the recursions that
matter most on the CPU, in numpy. On other devices they are parallel scans of matrix products, whose number of kernel
launches grows with log T, not with T (Hassan, Särkkä and García-Fernández, 2021, "Temporal parallelization of inference
in hidden Markov models").
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .recursions import FLOAT64_RANGE, IMPOSSIBLE, RESCALE_EVERY, best_backward, read_path, scaled_messages

MAX_SCAN_ELEMENTS = 2**27
"""Number of elements of the largest tensor that a parallel scan may create."""


def add_boundary(emissions: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the log-scores of all states, (T + 2, B, S), from those of the tags, (T, B, K), and the mask (T, B)."""
    timesteps, batch, num_tags = emissions.shape
    scores = emissions.new_empty(timesteps + 2, batch, num_tags + 1, dtype=dtype)
    _fill_states(scores, emissions, mask, zero=IMPOSSIBLE, one=0)
    return scores.clamp_(min=IMPOSSIBLE)  # the difference of two scores of -inf would be NaN


def _fill_states(states: Tensor, tags: Tensor, mask: Tensor, zero: float, one: float) -> None:
    """Write `tags` (T, B, K) and the boundary into `states` (T + 2, B, S); `zero` and `one` are the semiring's."""
    states.fill_(zero)
    states[:: len(tags) + 1, :, -1] = one
    states[1:-1, :, :-1] = tags
    states[1:-1, :, :-1].masked_fill_(~mask[..., None], zero)
    states[1:-1, :, -1].masked_fill_(~mask, one)


def can_use_scaling(emissions: Tensor, transitions: Tensor) -> bool:
    """Return whether the scores are small enough for [`ScaledLattice`] to be exact; always false off the CPU.

    See [`recursions.rescaling_interval`]. Off the CPU, reading the range would make the host wait for the device.
    """
    if emissions.device.type != "cpu" or not emissions.numel():
        return False
    score_range = 0.0
    for scores in (emissions.detach(), transitions.masked_fill(transitions < IMPOSSIBLE / 2, 0)):
        lowest, highest = scores.aminmax()
        score_range += max(highest.item(), 0) - min(lowest.item(), 0)
    return score_range < FLOAT64_RANGE / (RESCALE_EVERY + 3)


class LogLattice:
    """Forward and backward messages of a batch in log space: exact for scores of any size.

    The arguments are the scores of the tags, (T, B, K), the mask, (T, B), and the scores of the transitions between
    states, (S, S). The attribute `log_z`, (B,), is the logarithm of the partition function.
    """

    def __init__(self, emissions: Tensor, mask: Tensor, transitions: Tensor) -> None:
        self.scores, self.transitions = add_boundary(emissions, mask, transitions.dtype), transitions
        self.forward, self.backward = _messages(self.scores, transitions, _log_sum_exp)  # (T + 2, B, S) each
        self.log_z = self.backward[0, :, -1]

    def log_marginals(self) -> Tensor:
        """Return log P(y_t = k), (T + 2, B, S)."""
        return (self.forward + self.backward - self.scores).log_softmax(-1)

    def log_backward(self) -> Tensor:
        """Return the log-sum over all continuations from y_t = k, its emission included, (T + 2, B, S)."""
        return self.backward

    def expected_counts(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expected numbers of states and transitions, weighted by sequence with `weights` (B,).

        They are the derivatives of `weights @ log_z` with respect to the scores (Sutton and McCallum, 2012, section 5).

        Returns:
            states: weights[b] * P(y_t = k), (T + 2, B, S).
            transitions: sum over t and b of weights[b] * P(y_t = i, y_t+1 = j), (S, S).
        """
        # Blocks of timesteps keep the (block, B, S, S) tensor of pairs below 64 MB.
        weights = weights.to(self.forward.dtype)
        pairs = torch.zeros_like(self.transitions)
        block = max(1, 2**23 // max(1, self.forward.shape[1] * pairs.numel()))
        for t in range(0, len(self.forward) - 1, block):
            left = self.forward[t:-1][:block, :, :, None]  # (block, B, S, 1)
            right = self.backward[t + 1 :][:block, :, None]  # (block, B, 1, S)
            log_pairs = left + right + (self.transitions - self.log_z[:, None, None])  # (block, B, S, S)
            # Probabilities are at most 1. The clamp holds this for impossible gold tags too, whose scores are so low
            # that rounding errors exceed differences between scores.
            pairs += torch.einsum("tbij,b->ij", log_pairs.clamp_(max=0).exp_(), weights)
        return self.log_marginals().exp() * weights[:, None], pairs


class ScaledLattice:
    """The messages of [`LogLattice`] as probabilities, rescaled to a sum of 1 every few timesteps.

    Each step of the recursion is one matrix product, in float64, which loses nothing for scores that
    [`can_use_scaling`] accepts.
    """

    def __init__(self, emissions: Tensor, mask: Tensor, transitions: Tensor) -> None:
        self.transitions = transitions.exp()  # (S, S)
        timesteps, batch, num_tags = emissions.shape
        self.emitted = transitions.new_empty(timesteps + 2, batch, num_tags + 1)
        _fill_states(self.emitted, emissions.double().exp(), mask, zero=0, one=1)
        entered, scales = scaled_messages(self.emitted.numpy(), self.transitions.numpy())
        self.scales = torch.from_numpy(scales[:, 0])  # (T + 2, B, 1)
        forward, backward = torch.from_numpy(entered).unbind(1)
        self.forward = forward * self.emitted  # (T + 2, B, S), not yet divided by the scale at t
        self.backward = backward.flip(0)  # (T + 2, B, S), without the emission at t
        self.log_z = self.forward[-1, :, -1].log() + self.scales[:-1].log().sum((0, 2))

    def _unnormalized_marginals(self) -> tuple[Tensor, Tensor]:
        """Return P(y_t = k) * total_t, (T + 2, B, S), and the totals, (T + 2, B, 1)."""
        joint = self.forward * self.backward
        return joint, joint.sum(-1, keepdim=True)

    def log_marginals(self) -> Tensor:
        """Return log P(y_t = k), (T + 2, B, S)."""
        joint, total = self._unnormalized_marginals()
        return joint.div_(total).log_()

    def log_backward(self) -> Tensor:
        """Return what [`LogLattice.log_backward`] returns, up to a constant for each timestep and sequence."""
        return (self.backward * self.emitted).log_()

    def expected_counts(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return what [`LogLattice.expected_counts`] returns, from one matrix product over timesteps and sequences.

        P(y_t = i, y_u = j) = forward_t[i] / scale_t * transitions[i, j] * emitted_u[j] * backward_u[j] / total_u with
        u = t + 1: without the division by total_u, the sum over i is forward_u[j] * backward_u[j].
        """
        joint, total = self._unnormalized_marginals()
        factors = weights[:, None] / total  # (T + 2, B, 1)
        right = (self.backward[1:] * self.emitted[1:]).mul_(factors[1:] / self.scales[:-1])  # (T + 1, B, S)
        pairs = self.transitions * (self.forward[:-1].flatten(0, 1).T @ right.flatten(0, 1))  # (S, S)
        return joint.mul_(factors), pairs


def forward_backward(
    emissions: Tensor, mask: Tensor, transitions: Tensor, use_scaling: bool | None = None
) -> LogLattice | ScaledLattice:
    """Build [`ScaledLattice`], which is faster, if `use_scaling` (default: [`can_use_scaling`]), or [`LogLattice`]."""
    if can_use_scaling(emissions, transitions) if use_scaling is None else use_scaling:
        lattice = ScaledLattice(emissions, mask, transitions)
        if lattice.log_z.isfinite().all():  # a sequence without any possible path needs the finite log-scores
            return lattice
    return LogLattice(emissions, mask, transitions)


Reduction = Callable[[Tensor, int], Tensor]
"""Reduction of path scores along a dimension: [`_log_sum_exp`] sums over paths, `torch.amax` takes the best one."""


def _log_sum_exp(scores: Tensor, dim: int) -> Tensor:
    """Return `torch.logsumexp` of scores that are not infinite, in six kernels instead of ten."""
    largest = scores.amax(dim, keepdim=True)
    return (scores - largest).exp_().sum(dim).log_().add_(largest.squeeze(dim))


def _messages(scores: Tensor, transitions: Tensor, reduce: Reduction) -> tuple[Tensor, Tensor]:
    """Reduce the scores of the paths up to each state, and from each state on, its own included, (T + 2, B, S) each."""
    scan = scores.device.type != "cpu" and scores.numel() * transitions.numel() <= MAX_SCAN_ELEMENTS
    return (_scan_messages if scan else _sequential_messages)(scores, transitions, reduce)


def _sequential_messages(scores: Tensor, transitions: Tensor, reduce: Reduction) -> tuple[Tensor, Tensor]:
    """Compute the messages one timestep after the other, both directions as one batch."""
    inputs = torch.stack([scores, scores.flip(0)], 1).unbind(0)  # T + 2 tensors of (2, B, S)
    both = torch.stack([transitions, transitions.T])[:, None]  # (2, 1, S, S)
    messages = [inputs[0]]
    for step in inputs[1:]:
        messages.append(reduce(messages[-1][..., None] + both, -2) + step)
    forward, backward = torch.stack(messages, 1)
    return forward, backward.flip(0)


def _scan_messages(scores: Tensor, transitions: Tensor, reduce: Reduction) -> tuple[Tensor, Tensor]:
    """Combine the transition matrices pairwise, level by level (a parallel scan), then walk back down to the messages.

    The step to timestep t is the matrix transitions[i, j] + scores[t, j]; `reduce` over the state between two steps
    multiplies their matrices. On the way down, each node of this tree has the forward message before its steps and the
    backward message after them; the matrices of its two children give both messages at the timestep between them.
    """
    identity = torch.full_like(transitions, IMPOSSIBLE).fill_diagonal_(0).expand(1, scores.shape[1], -1, -1)
    levels = [torch.cat([identity, transitions + scores[1:, :, None], identity])]  # (T + 3, B, S, S)
    while len(levels[-1]) > 1:
        if len(levels[-1]) % 2:
            levels[-1] = torch.cat([levels[-1], identity])
        first, second = levels[-1][::2], levels[-1][1::2]
        levels.append(reduce(first[..., None] + second[..., None, :, :], -2))
    before, after = scores[:1], torch.zeros_like(scores[:1])  # (nodes, B, S)
    for matrices in levels[-2::-1]:
        first, second = matrices[::2], matrices[1::2]
        before, after = before[: len(first)], after[: len(first)]  # without the identity that made the level even
        between = reduce(before[..., None] + first, -2), reduce(second + after[..., None, :], -1)
        before = torch.stack([before, between[0]], 1).flatten(0, 1)
        after = torch.stack([between[1], after], 1).flatten(0, 1)
    # Leaf t + 1 is the step that follows timestep t, leaf t the step that leads to it.
    return before[1 : len(scores) + 1], after[: len(scores)] + scores


def best_path(scores: Tensor, transitions: Tensor) -> tuple[Tensor, Tensor]:
    """Find the best path of each sequence, (T + 2, B), and its score, (B,), which is -inf if no path is possible.

    The Viterbi recursion over `scores`, (T + 2, B, S) from [`add_boundary`], and `transitions`, (S, S), runs from the
    end to the start. It stores the best score of the continuations of each state and no back-pointers. The path is then
    read from the start on.
    """
    if scores.device.type == "cpu":
        if scores[0].numel() * len(transitions) > 2**15:
            backward = _best_backward_in_threads(scores, transitions)
        else:
            backward = torch.from_numpy(best_backward(scores.numpy(), transitions.numpy()))
        path = torch.from_numpy(read_path(backward.numpy(), transitions.numpy()))
    else:
        _, backward = _messages(scores, transitions, torch.amax)
        path = _scan_path(backward, transitions)
    totals = backward[0, :, -1]
    return path, totals.masked_fill(totals < IMPOSSIBLE / 2, -torch.inf)


def _best_backward_in_threads(scores: Tensor, transitions: Tensor) -> Tensor:
    """Compute `recursions.best_backward` with PyTorch's operators, which share a large batch among threads."""
    spare = -len(transitions) % 16  # rows of multiples of 16 states are whole cache lines
    backward = nn.functional.pad(scores, (0, spare), value=IMPOSSIBLE)
    following = nn.functional.pad(transitions, (0, spare, 0, spare), value=IMPOSSIBLE).T.contiguous()
    paths = backward.new_empty(backward.shape[1], *following.shape)  # (B, S of the next, S)
    best = torch.empty_like(backward[0])  # (B, S)
    steps = backward.unbind(0)[::-1]
    for after, step in zip(steps, steps[1:]):
        torch.add(after[..., None], following, out=paths)
        step += torch.amax(paths, 1, out=best)
    return backward[..., : len(transitions)]


def _scan_path(backward: Tensor, transitions: Tensor) -> Tensor:
    """Compute `recursions.read_path` by pointer jumping.

    `pointers[t, b, i]` is the state at t of the best path that is in state i `jump` timesteps earlier.
    """
    start = torch.full_like(backward[:1], len(transitions) - 1, dtype=torch.long)  # (1, B, S)
    blocks = transitions.split(max(1, MAX_SCAN_ELEMENTS // backward.numel()))
    states = [(block + backward[1:, :, None]).argmax(-1) for block in blocks]  # (T + 1, B, rows of the block) each
    pointers = torch.cat([start, torch.cat(states, -1)])
    jump = 1
    while jump < len(pointers):
        pointers = torch.cat([pointers[:jump], pointers[jump:].gather(-1, pointers[:-jump])])
        jump *= 2
    return pointers[..., -1]


def best_paths(scores: Tensor, transitions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the k best paths of each sequence with the list Viterbi algorithm (Seshadri and Sundberg, 1994).

    The recursion keeps the k best partial paths into each state. Rank r of state s has the index r * S + s; a
    back-pointer is the index of the partial path that is extended. The results are those of [`best_path`] for each
    rank, best first: (k, T + 2, B) and (k, B).
    """
    states = len(transitions)
    best = scores.new_full((scores.shape[1], k, states), -torch.inf)  # (B, k, S)
    best[:, 0] = scores[0]
    pointers = []
    for step in scores[1:, :, None].unbind(0):  # (B, 1, S)
        extended = (best[..., None] + transitions).flatten(1, 2)  # (B, k * S, S)
        best, pointer = extended.topk(k, 1)
        best = best + step
        pointers.append(pointer.flatten(1))  # (B, k * S)
    totals = best[..., -1]  # (B, k)
    ranks = torch.arange(1, k + 1, device=scores.device) * states - 1  # all ranks of the boundary
    path = [ranks.expand_as(totals)]
    for pointer in pointers[::-1]:
        path.append(pointer.gather(1, path[-1]))
    paths = torch.stack(path[::-1]) % states  # (T + 2, B, k)
    return paths.permute(2, 0, 1), totals.masked_fill(totals < IMPOSSIBLE / 2, -torch.inf).T
