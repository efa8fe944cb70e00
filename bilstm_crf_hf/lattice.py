"""Forward-backward over the lattice of all tag sequences, and Viterbi's recursion.

Letters in shapes: T timesteps, B sequences, K tags, S = K + 1 states. The last state is `outside`: every sequence comes
from it and goes back to it. [`enclose`] puts a timestep outside in front and one behind, and lets a sequence that is
shorter than T stay outside from its end on. Thereby starts and ends are transitions like all others, and no recursion
needs lengths or masks.

On the CPU a step is so small that calling an operator takes longer than what it computes; numpy's are called several
times faster than torch's, so that the recursions over timesteps are numpy's there. Elsewhere they are products of
matrices, combined by halves: a number of kernels that grows with the logarithm of T.

This file is copied into exported model repositories: it imports torch and numpy only.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

IMPOSSIBLE = -1e30
"""Log-score of what cannot occur: finite, so that no gradient becomes NaN, and below any sum of real scores."""

LARGEST_PRODUCT = 2**27
"""Elements of the largest tensor that recursions by halves may make."""


def enclose(emissions: Tensor, inside: Tensor, dtype: torch.dtype) -> Tensor:
    """The log-scores of all states, (T + 2, B, S): those of the tags between two timesteps outside.

    Args:
        emissions: (T, B, K), the scores of the tags.
        inside: (T, B) booleans, which timesteps lie within the sequences.
    """
    timesteps, batch, num_tags = emissions.shape
    scores = emissions.new_empty(timesteps + 2, batch, num_tags + 1, dtype=dtype)
    _enclose(emissions, inside, scores, never=IMPOSSIBLE, always=0)
    return scores.clamp_(min=IMPOSSIBLE)  # of -inf, the difference of two would be NaN


def _enclose(tags: Tensor, inside: Tensor, states: Tensor, never: float, always: float) -> None:
    states.fill_(never)
    states[:: len(tags) + 1, :, -1] = always
    states[1:-1, :, :-1] = tags
    states[1:-1, :, :-1].masked_fill_(~inside[..., None], never)
    states[1:-1, :, -1].masked_fill_(~inside, always)


def is_moderate(emissions: Tensor, transitions: Tensor) -> bool:
    """Whether scores are so small that [`ScaledLattice`] loses nothing; never off the CPU, whose host would wait.

    Between two rescalings, and on the at most three steps by which a BIO or BIOES scheme leads from any tag to any
    other, the weight of a tag falls or grows by no more than the extent of the scores a step. float64 reaches from
    e^-708 to e^709, of which something is left for sums over tags.
    """
    if emissions.device.type != "cpu" or not emissions.numel():
        return False
    extent = 0.0
    for scores in (emissions.detach(), transitions.masked_fill(transitions < IMPOSSIBLE / 2, 0)):
        lowest, highest = scores.aminmax()
        extent += max(highest.item(), 0) - min(lowest.item(), 0)
    return extent < 600 / (ScaledLattice.RESCALE_EVERY + 3)


class Lattice(Protocol):
    """What the forward and backward messages of a batch tell."""

    log_z: Tensor
    """The logarithm of the partition function, (B,)."""

    def log_posterior(self) -> Tensor:
        """log P(y_t = k), (T + 2, B, S)."""

    def log_ahead(self) -> Tensor:
        """The log-score of all that follows from y_t = k on, its emission included, up to a constant a timestep."""

    def expectations(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """P(y_t = k) * weights_b, (T + 2, B, S), and sums over t and b of weights_b * P(y_t = i, y_t+1 = j), (S, S)."""


def forward_backward(emissions: Tensor, inside: Tensor, transitions: Tensor, moderate: bool) -> Lattice:
    """The lattice of emissions (T, B, K), taken the fast way if they are moderate; `inside` as in [`enclose`]."""
    if moderate:
        lattice = ScaledLattice(emissions, inside, transitions)
        if lattice.log_z.isfinite().all():  # else some sequence has no possible path at all
            return lattice
    return LogLattice(emissions, inside, transitions)


class LogLattice:
    """Messages as logarithms: right for scores of any size."""

    def __init__(self, emissions: Tensor, inside: Tensor, transitions: Tensor) -> None:
        self.scores, self.transitions = enclose(emissions, inside, transitions.dtype), transitions
        self.alpha, self.ahead = _messages(self.scores, transitions, _log_sum_exp)
        self.log_z = self.ahead[0, :, -1]

    def log_posterior(self) -> Tensor:
        return (self.alpha + self.ahead - self.scores).log_softmax(-1)

    def log_ahead(self) -> Tensor:
        return self.ahead

    def expectations(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """A block of timesteps at a time, so that the (T, B, S, S) tensor of pairs never takes more than 64 MB."""
        weights = weights.to(self.alpha.dtype)
        pairs = torch.zeros_like(self.transitions)
        block = max(1, 2**23 // max(1, self.alpha.shape[1] * pairs.numel()))
        for t in range(0, len(self.alpha) - 1, block):
            before, behind = self.alpha[t:-1][:block, :, :, None], self.ahead[t + 1 :][:block, :, None]
            scores = before + behind + (self.transitions - self.log_z[:, None, None])
            # At most 1, also where gold tags are impossible, whose scores are so low that rounding exceeds differences.
            pairs += torch.einsum("tbij,b->ij", scores.clamp_(max=0).exp_(), weights)
        return self.log_posterior().exp() * weights[:, None], pairs


class ScaledLattice:
    """Messages as probabilities up to a factor, brought back to a sum of 1 every few timesteps: a product a step.

    In float64 nothing that counts underflows for scores that [`is_moderate`] lets pass. Time runs forwards in the first
    half of each array (T + 2, 2, B, S), and backwards in the second.
    """

    RESCALE_EVERY = 8

    def __init__(self, emissions: Tensor, inside: Tensor, transitions: Tensor) -> None:
        self.transitions = transitions.exp()
        timesteps, batch, num_tags = emissions.shape
        emitted = transitions.new_empty(timesteps + 2, 2, batch, num_tags + 1)
        _enclose(emissions.double().exp(), inside, emitted[:, 0], never=0, always=1)
        self.emitted, emitted = emitted[:, 0], emitted.numpy()
        emitted[:, 1] = emitted[::-1, 0]
        both = torch.stack([self.transitions, self.transitions.T]).numpy()
        entered, scales = np.ones_like(emitted), np.ones((timesteps + 2, 2, batch, 1))
        message = emitted[0]
        with np.errstate(invalid="ignore"):  # where there is no path, a sum is 0, and so will be Z
            for t, (entering, step) in enumerate(zip(entered[1:], emitted[1:]), 1):
                message = np.matmul(message, both, out=entering) * step
                if t % self.RESCALE_EVERY == 0:
                    message.sum(-1, keepdims=True, out=scales[t])
                    message /= scales[t]
        entered, self.scales = torch.from_numpy(entered), torch.from_numpy(scales[:, 0])
        self.alpha = entered[:, 0] * self.emitted  # not yet divided by the scales (T + 2, B, 1)
        self.beta = entered[:, 1].flip(0)  # without the emission
        self.log_z = self.alpha[-1, :, -1].log() + self.scales[:-1].log().sum((0, 2))

    def _joint(self) -> tuple[Tensor, Tensor]:
        """P(y_t = k) up to a factor a timestep, (T + 2, B, S), and this factor's inverse, (T + 2, B, 1)."""
        joint = self.alpha * self.beta
        return joint, joint.sum(-1, keepdim=True)

    def log_posterior(self) -> Tensor:
        joint, total = self._joint()
        return joint.div_(total).log_()

    def log_ahead(self) -> Tensor:
        return (self.beta * self.emitted).log_()

    def expectations(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        joint, total = self._joint()
        factors = weights[:, None] / total  # (T + 2, B, 1)
        # The total of all pairs at t and t + 1 is that at t + 1, before alpha was divided.
        behind = (self.beta[1:] * self.emitted[1:]).mul_(factors[1:] / self.scales[:-1])
        pairs = self.transitions * (self.alpha[:-1].flatten(0, 1).T @ behind.flatten(0, 1))
        return joint.mul_(factors), pairs


Sum = Callable[[Tensor, int], Tensor]
"""Over paths, along a dimension: [`_log_sum_exp`] of all, or `torch.amax` for the best."""


def _log_sum_exp(scores: Tensor, dim: int) -> Tensor:
    """Return `torch.logsumexp` of scores that are not infinite, in six kernels instead of ten."""
    largest = scores.amax(dim, keepdim=True)
    return (scores - largest).exp_().sum(dim).log_().add_(largest.squeeze(dim))


def _messages(scores: Tensor, transitions: Tensor, total: Sum) -> tuple[Tensor, Tensor]:
    """Of every state: the total over the ways up to it, and over those from it on, its own score included in both."""
    by_halves = scores.device.type != "cpu" and scores.numel() * transitions.numel() <= LARGEST_PRODUCT
    return (_messages_by_halves if by_halves else _messages_by_steps)(scores, transitions, total)


def _messages_by_steps(scores: Tensor, transitions: Tensor, total: Sum) -> tuple[Tensor, Tensor]:
    """Both directions as one batch."""
    inputs = torch.stack([scores, scores.flip(0)], 1).unbind(0)  # T + 2 of (2, B, S)
    both = torch.stack([transitions, transitions.T])[:, None]  # (2, 1, S, S)
    messages = [inputs[0]]
    for step in inputs[1:]:
        messages.append(total(messages[-1][..., None] + both, -2) + step)
    forwards, backwards = torch.stack(messages, 1)
    return forwards, backwards.flip(0)


def _messages_by_halves(scores: Tensor, transitions: Tensor, total: Sum) -> tuple[Tensor, Tensor]:
    """A step is a matrix. Up a tree, matrices of neighbouring stretches are multiplied; down again, messages at the two
    ends of a stretch and the matrices of its halves give those in its middle."""
    identity = torch.full_like(transitions, IMPOSSIBLE).fill_diagonal_(0).expand(1, scores.shape[1], -1, -1)
    levels = [torch.cat([identity, transitions + scores[1:, :, None], identity])]  # (T + 3, B, S, S)
    while len(levels[-1]) > 1:
        if len(levels[-1]) % 2:
            levels[-1] = torch.cat([levels[-1], identity])
        first, second = levels[-1][::2], levels[-1][1::2]
        levels.append(total(first[..., None] + second[..., None, :, :], -2))
    before, behind = scores[:1], torch.zeros_like(scores[:1])
    for matrices in levels[-2::-1]:
        first, second = matrices[::2], matrices[1::2]
        before, behind = before[: len(first)], behind[: len(first)]  # of an identity that made a level even, nothing
        middle = total(before[..., None] + first, -2), total(second + behind[..., None, :], -1)
        before = torch.stack([before, middle[0]], 1).flatten(0, 1)
        behind = torch.stack([middle[1], behind], 1).flatten(0, 1)
    return before[1 : len(scores) + 1], behind[: len(scores)] + scores


def best_path(scores: Tensor, transitions: Tensor) -> tuple[Tensor, Tensor]:
    """The best path (T + 2, B) and its score (B,), -inf where there is no path.

    What Viterbi's recursion keeps is the best score of all that follows each state, not pointers: the path is then read
    from the start on, looking at one row of the transitions a step.
    """
    if scores.device.type == "cpu":
        ahead = _best_ahead(scores, transitions)
        path = _follow(ahead, transitions)
    else:
        _, ahead = _messages(scores, transitions, torch.amax)
        path = _follow_by_halves(ahead, transitions)
    total = ahead[0, :, -1]
    return path, total.masked_fill(total < IMPOSSIBLE / 2, -torch.inf)


def _best_ahead(scores: Tensor, transitions: Tensor) -> Tensor:
    """The best score of what follows each state, its own included, on the CPU."""
    ahead = scores.clone().numpy()
    following = np.ascontiguousarray(transitions.numpy().T)[:, None]  # (S of the next, 1, S)
    entering = np.empty((len(following), *ahead.shape[1:]))  # the maximum over the first dimension is the fastest
    if entering.size > 2**15:
        return _best_ahead_in_threads(scores, transitions)
    for t in range(len(ahead) - 1, 0, -1):
        np.add(ahead[t].T[..., None], following, out=entering)
        ahead[t - 1] += entering.max(0)
    return torch.from_numpy(ahead)


def _best_ahead_in_threads(scores: Tensor, transitions: Tensor) -> Tensor:
    """The same where a step is large: torch's operators share out the batch, if rows are whole lines of the cache."""
    spare = -len(transitions) % 16
    ahead = nn.functional.pad(scores, (0, spare), value=IMPOSSIBLE)
    following = nn.functional.pad(transitions, (0, spare, 0, spare), value=IMPOSSIBLE).T.contiguous()
    entering = ahead.new_empty(ahead.shape[1], *following.shape)  # (B, S of the next, S)
    best = torch.empty_like(ahead[0])
    steps = ahead.unbind(0)[::-1]
    for behind, step in zip(steps, steps[1:]):
        torch.add(behind[..., None], following, out=entering)
        step += torch.amax(entering, 1, out=best)
    return ahead[..., : len(transitions)]


def _follow(ahead: Tensor, transitions: Tensor) -> Tensor:
    """The path from outside that goes on with the best of each timestep, on the CPU."""
    rows, scores = transitions.numpy(), ahead.numpy()
    path = np.full(scores.shape[:2], len(rows) - 1)
    for t in range(1, len(path)):
        (rows.take(path[t - 1], 0) + scores[t]).argmax(-1, out=path[t])
    return torch.from_numpy(path)


def _follow_by_halves(ahead: Tensor, transitions: Tensor) -> Tensor:
    """The same path: which state follows which, of stretches of 1, 2, 4, ... steps up to each timestep."""
    outside = torch.full_like(ahead[:1], len(transitions) - 1, dtype=torch.long)
    blocks = transitions.split(max(1, LARGEST_PRODUCT // ahead.numel()))
    followers = [(block + ahead[1:, :, None]).argmax(-1) for block in blocks]
    pointers = torch.cat([outside, torch.cat(followers, -1)])
    stretch = 1
    while stretch < len(pointers):
        pointers = torch.cat([pointers[:stretch], pointers[stretch:].gather(-1, pointers[:-stretch])])
        stretch *= 2
    return pointers[..., -1]


def best_paths(scores: Tensor, transitions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best paths (k, T + 2, B) and their scores (k, B), -inf where there are fewer paths.

    By Viterbi's recursion over the k best ways into each state. A way is one of k ranks of one of S states, flattened
    to rank * S + state; a back-pointer is the way before.
    """
    states = len(transitions)
    ways = scores.new_full((scores.shape[1], k, states), -torch.inf)
    ways[:, 0] = scores[0]
    pointers = []
    for step in scores[1:, :, None].unbind(0):
        entering = (ways[..., None] + transitions).flatten(1, 2)  # (B, k * S, S)
        ways, pointer = entering.topk(k, 1)
        ways = ways + step
        pointers.append(pointer.flatten(1))
    totals = ways[..., -1]
    current = torch.arange(1, k + 1, device=scores.device) * states - 1  # all ranks of `outside`
    path = [current.expand_as(totals)]
    for pointer in pointers[::-1]:
        path.append(pointer.gather(1, path[-1]))
    paths = torch.stack(path[::-1]) % states  # (T + 2, B, k)
    return paths.permute(2, 0, 1), totals.masked_fill(totals < IMPOSSIBLE / 2, -torch.inf).T
