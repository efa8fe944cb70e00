"""Forward-backward over the lattice of all tag sequences, and Viterbi's recursion.

Letters in shapes: T timesteps, B sequences, K tags. Tensors are time-major and every sequence begins at timestep 0, so
that no recursion needs a mask: what lies behind a sequence's end is computed, and never read. A message that runs
backwards is the same recursion over the reversed sequence with the transitions transposed, so both directions run as
one batch, in T - 1 steps.

On the CPU a step is so small that calling an operator takes longer than what it computes; numpy's are called several
times faster than torch's, so that the recursions over timesteps are numpy's there.

This file is copied into exported model repositories: it imports torch and numpy only.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

IMPOSSIBLE = -1e30
"""Log-potential of what cannot occur: finite, so that no gradient becomes NaN, and below any sum of real scores."""


class Potentials(NamedTuple):
    """Log-scores of starting with a tag (K,), ending with one (K,), and of one tag behind another (K, K)."""

    start: Tensor
    end: Tensor
    transitions: Tensor


class Lattice(Protocol):
    """What the forward and backward messages of a batch tell."""

    log_z: Tensor
    """The logarithm of the partition function, (B,)."""

    def log_posterior(self) -> Tensor:
        """log P(y_t = k), (T, B, K)."""

    def log_ahead(self) -> Tensor:
        """The log-score of all that follows from y_t = k on, its emission included, up to a constant a timestep."""

    def expectations(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """P(y_t = k) * weights_b, (T, B, K), and the sum of weights_b P(y_t = i, y_t+1 = j) over t and b, (K, K)."""


def inside(timesteps: int, lengths: Tensor) -> Tensor:
    """(T, B) booleans: which timesteps lie within the sequences."""
    return torch.arange(timesteps, device=lengths.device)[:, None] < lengths


def forward_backward(emissions: Tensor, lengths: Tensor, potentials: Potentials) -> Lattice:
    """The lattice of emissions (T, B, K), 0 behind each sequence's end.

    On the CPU scores of ordinary size take the fast way; telling so elsewhere would make the host wait.
    """
    if emissions.device.type == "cpu" and _is_moderate(emissions, potentials):
        lattice = ScaledLattice(emissions, lengths, potentials)
        if lattice.log_z.isfinite().all():  # else some sequence has no possible path at all
            return lattice
    return LogLattice(emissions, lengths, potentials)


class LogLattice:
    """Messages as logarithms: right for scores of any size.

    alpha_t(j) = e_t(j) + log sum_i exp(alpha_t-1(i) + T_ij); beta_t(i) + e_t(i) is the same over the reversed sequence.
    """

    def __init__(self, emissions: Tensor, lengths: Tensor, potentials: Potentials) -> None:
        start, end, transitions = potentials
        inputs = torch.stack([emissions, _reverse(emissions, lengths)], 1).unbind(0)  # T of (2, B, K)
        both = torch.stack([transitions, transitions.T])[:, None]  # (2, 1, K, K)
        states = [inputs[0] + torch.stack([start, end])[:, None]]
        for scores in inputs[1:]:
            states.append((states[-1][..., None] + both).logsumexp(-2) + scores)
        self.alpha, reversed_beta = torch.stack(states, 1)  # (T, B, K) each
        self.beta = _reverse(reversed_beta, lengths)  # with the emission
        self.emissions, self.lengths, self.transitions = emissions, lengths, transitions
        self.log_z = (self.beta[0] + start).logsumexp(-1)

    def log_posterior(self) -> Tensor:
        return (self.alpha + self.beta - self.emissions).log_softmax(-1)

    def log_ahead(self) -> Tensor:
        return self.beta

    def expectations(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """A block of timesteps at a time, so that the (T, B, K, K) tensor of pairs never takes more than 64 MB."""
        weights = weights.to(self.alpha.dtype) * inside(len(self.alpha), self.lengths)
        pairs = torch.zeros_like(self.transitions)
        block = max(1, 2**23 // max(1, self.alpha.shape[1] * pairs.numel()))
        for t in range(0, len(self.alpha) - 1, block):
            before, behind = self.alpha[t:-1][:block, :, :, None], self.beta[t + 1 :][:block, :, None]
            scores = before + behind + (self.transitions - self.log_z[:, None, None])
            # At most 1, also behind a sequence's end, and where gold tags are impossible and their scores so low that
            # rounding outweighs differences.
            pairs += torch.einsum("tbij,tb->ij", scores.clamp_(max=0).exp_(), weights[t + 1 :][:block])
        return self.log_posterior().exp() * weights[..., None], pairs


class ScaledLattice:
    """Messages as probabilities, brought back to a sum of 1 every few timesteps: a matrix product a step.

    In float64 nothing that counts underflows for scores that `_is_moderate` lets pass.
    """

    RESCALE_EVERY = 4

    def __init__(self, emissions: Tensor, lengths: Tensor, potentials: Potentials) -> None:
        peaks = emissions.amax(-1, keepdim=True)
        self.emissions = (emissions - peaks).exp_()  # probabilities up to a factor, as all below
        start, end, self.transitions = (score.exp() for score in potentials)
        messages = torch.stack([self.emissions, _reverse(self.emissions, lengths)], 1)  # (T, 2, B, K)
        messages[0] *= torch.stack([start, end])[:, None]
        both = torch.stack([self.transitions, self.transitions.T]).numpy()
        steps, scales = messages.numpy(), np.ones((len(emissions), 2, emissions.shape[1], 1))
        for t, (before, message) in enumerate(zip(steps, steps[1:]), 1):
            message *= before @ both
            if t % self.RESCALE_EVERY == 0:
                message.sum(-1, keepdims=True, out=scales[t])
                message /= scales[t]
        self.scales = torch.from_numpy(scales[:, 0])  # (T, B, 1), by which alpha was divided
        self.within = inside(len(emissions), lengths)[..., None]
        self.alpha = messages[:, 0].masked_fill_(~self.within, 1)
        self.beta = _reverse(messages[:, 1], lengths).masked_fill_(~self.within, 1)
        last = (lengths - 1)[None, :, None].expand_as(self.alpha[:1])
        constants = ((peaks + self.scales.log()) * self.within).sum((0, 2))
        self.log_z = (self.alpha.gather(0, last)[0] * end).sum(-1).log() + constants

    def _joint(self) -> tuple[Tensor, Tensor]:
        """P(y_t = k) up to a factor a timestep, (T, B, K), and this factor's inverse, (T, B, 1)."""
        joint = self.alpha * self.beta / self.emissions
        return joint, joint.sum(-1, keepdim=True)

    def log_posterior(self) -> Tensor:
        joint, total = self._joint()
        return joint.div_(total).log_()

    def log_ahead(self) -> Tensor:
        return self.beta.log()

    def expectations(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        joint, total = self._joint()
        weights = weights.to(joint.dtype)[:, None] * self.within  # (T, B, 1)
        # The total of all pairs at t and t + 1 is that at t + 1, before alpha was divided.
        behind = self.beta[1:] * (weights[1:] / (total[1:] * self.scales[1:]))
        pairs = self.transitions * (self.alpha[:-1].flatten(0, 1).T @ behind.flatten(0, 1))
        return joint.div_(total).mul_(weights), pairs


def _is_moderate(emissions: Tensor, potentials: Potentials) -> bool:
    """Whether scores differ by so little that `ScaledLattice` loses nothing.

    Between two rescalings, and on the at most three steps by which a BIO or BIOES scheme leads from any tag to any
    other, the weight of a tag falls or grows by no more than the range of the scores a step. float64 reaches from
    e^-708 to e^709, of which something is left for sums over tags.
    """
    if not emissions.numel():
        return False
    lowest, highest = emissions.aminmax(dim=-1)
    spread = (highest - lowest).max()
    for scores in potentials:
        lowest, highest = scores.masked_fill(scores < IMPOSSIBLE / 2, 0).aminmax()
        spread += highest.clamp(min=0) - lowest.clamp(max=0)
    return bool(spread < 600 / (ScaledLattice.RESCALE_EVERY + 3))


def _reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """(T, B, K) with each sequence turned round in its place; behind its end stand copies of its first timestep."""
    timesteps, batch, num_tags = x.shape
    if x.device.type == "cpu" and lengths.eq(timesteps).all():
        return x.flip(0)
    from_the_end = (lengths - 1 - torch.arange(timesteps, device=x.device)[:, None]).clamp(min=0)
    rows = from_the_end * batch + torch.arange(
        batch, device=x.device
    )  # of x as (T * B, K): copied whole, it is fastest
    return x.flatten(0, 1).index_select(0, rows.flatten()).view(timesteps, batch, num_tags)


def best_path(emissions: Tensor, lengths: Tensor, potentials: Potentials) -> tuple[Tensor, Tensor]:
    """The best path (T, B) and its score (B,), by Viterbi's recursion from the end to the start.

    Where there is no path the score is -inf, and behind a sequence's end the path holds any tag.

    It goes over the reversed sequences, and what it keeps is the best score of all that follows each tag, not pointers:
    the path is then read from the start on, looking at one row of the transitions a step.
    """
    start, end, transitions = potentials
    steps = _reverse(emissions, lengths)
    steps[0] += end
    (_scores_of_the_rest_numpy if steps.device.type == "cpu" else _scores_of_the_rest)(steps, transitions)
    ahead = _reverse(steps, lengths)
    total, first = (ahead[0] + start).max(-1)
    path = (_follow_numpy if steps.device.type == "cpu" else _follow)(first, ahead, transitions)
    return path, total.masked_fill(total < IMPOSSIBLE / 2, -torch.inf)


def _scores_of_the_rest(steps: Tensor, transitions: Tensor) -> None:
    """Add to the emissions of each timestep but the first (of reversed sequences) the best score of what follows."""
    following = transitions.T.contiguous()[:, None]  # (K of the next, 1, K): the maximum over the first is the fastest
    for before, scores in zip(steps, steps[1:]):
        scores += (before.T[..., None] + following).amax(0)


def _scores_of_the_rest_numpy(steps: Tensor, transitions: Tensor) -> None:
    following = np.ascontiguousarray(transitions.numpy().T)[:, None]
    scores = steps.numpy()
    entering = np.empty((scores.shape[2], *scores.shape[1:]))
    for t in range(1, len(scores)):
        np.add(scores[t - 1].T[..., None], following, out=entering)
        scores[t] += entering.max(0)


def _follow(first: Tensor, ahead: Tensor, transitions: Tensor) -> Tensor:
    """The path that begins with the tags `first` (B,) and goes on with the best of each timestep."""
    path = [first]
    for scores in ahead[1:]:
        path.append((transitions[path[-1]] + scores).argmax(-1))
    return torch.stack(path)


def _follow_numpy(first: Tensor, ahead: Tensor, transitions: Tensor) -> Tensor:
    rows, scores = transitions.numpy(), ahead.numpy()
    path = np.empty(scores.shape[:2], dtype=np.int64)
    path[0] = first.numpy()
    for t in range(1, len(path)):
        (rows.take(path[t - 1], 0) + scores[t]).argmax(-1, out=path[t])
    return torch.from_numpy(path)


def best_paths(emissions: Tensor, lengths: Tensor, potentials: Potentials, k: int) -> tuple[Tensor, Tensor]:
    """The k best paths (k, T, B) and their scores (k, B), by Viterbi's recursion over the k best ways into each tag.

    A state is one of k ranks of one of K tags, flattened to rank * K + tag; a back-pointer is the state before. Scores
    and paths are as those of [`best_path`].
    """
    start, end, transitions = potentials
    timesteps, batch, num_tags = emissions.shape
    state = emissions.new_full((batch, k, num_tags), -torch.inf)
    state[:, 0] = emissions[0] + start
    states, pointers = [state], []
    for scores in emissions[1:, :, None].unbind(0):
        entering = (state[..., None] + transitions).flatten(1, 2)  # (B, k * K, K)
        state, pointer = entering.topk(k, 1)
        state = state + scores
        states.append(state)
        pointers.append(pointer.flatten(1))
    final = lengths - 1
    leaving = torch.stack(states)[final, torch.arange(batch, device=final.device)] + end
    scores, current = leaving.flatten(1).topk(k, 1)  # (B, k)

    path = [current]
    if pointers:
        staying = torch.arange(k * num_tags, device=final.device)
        within = inside(timesteps, lengths)[1:, :, None]
        for pointer in torch.where(within, torch.stack(pointers), staying).flip(0).unbind(0):
            current = pointer.gather(1, current)
            path.append(current)
    paths = torch.stack(path[::-1]) % num_tags  # (T, B, k)
    return paths.permute(2, 0, 1), scores.masked_fill(scores < IMPOSSIBLE / 2, -torch.inf).T
