"""Viterbi and forward-backward recursions of a linear-chain CRF in numpy, and what tagging needs of them.

Letters in shapes: T timesteps, B sequences, K tags, S = K + 1 states. The states are the tags and, last, the boundary:
the state before the start and after the end of each sequence. [`add_boundary`] puts a timestep in this state before the
first timestep and one after the last, and keeps sequences shorter than T in it from their end on. Starts and ends are
then transitions like all others, and the recursions need no lengths and no masks.

One timestep is so little work that the overhead of calling operators dominates on the CPU. That of numpy is a fraction
of PyTorch's. This file is copied into exported model repositories and beside ONNX graphs, and needs only numpy.
"""

from collections.abc import Callable

import numpy as np
from numpy import ndarray

from .alignment import IGNORED

IMPOSSIBLE = -1e30
"""Log-score of the impossible: below any sum of real scores, and finite, so that no difference is NaN."""

FLOAT64_RANGE = 600.0
"""Natural logarithm of a ratio that float64 represents, which covers e^-708 to e^709, with room for sums over tags."""

RESCALE_EVERY = 8
"""Largest number of timesteps after which probabilities are scaled to a sum of 1."""


def decode(
    emissions: ndarray, lengths: ndarray, transitions: ndarray, continues: ndarray, temperature: float = 1.0
) -> tuple[ndarray, ndarray]:
    """Find the best path of each sequence and the probabilities along it; see `LinearChainCRF.posterior`.

    Args:
        emissions: (T, B, K), floating point.
        lengths: (B,), numbers of timesteps.
        transitions: (S, S), log-scores of the transitions between states in float64, see `LinearChainCRF.potentials`.
        continues: (S, S), whether the second state continues the entity of the first.
        temperature: number by which the scores are divided wherever probabilities are computed.

    Returns:
        paths: (T, B); -100 behind the end of a sequence, and everywhere if no path is possible.
        log_probs: (T, B, 3) in float64: log P(y_t), log P(y_t | y_t-1), and log P(y_t+1 does not continue the entity of
            y_t | y_t), at least -1e4; 0 behind the end of a sequence.

    Raises:
        ValueError: if an emission of a sequence is NaN or positive infinity.
    """
    inside = np.arange(len(emissions))[:, None] < lengths  # (T, B)
    scores = add_boundary(emissions, inside)
    tempered = [np.where(each > IMPOSSIBLE / 2, each / temperature, IMPOSSIBLE) for each in (scores, transitions)]
    weights = _scaled_weights(*tempered)
    joint, following = weights or _log_weights(*tempered)
    path = joint.argmax(-1)  # (T + 2, B), of the most probable tag at each timestep
    log_probs = path_log_probs(joint, following(path), continues, path)
    # A path with more than half of the probability is the best one, as most are; only the others are searched for.
    # Without weights, there may be sequences whose paths are all impossible.
    possible = (log_probs[..., 1].sum(0) > np.log(0.5 + 1e-6)) & (weights is not None)
    unsure = (~possible).nonzero()[0]
    if len(unsure):
        backward = best_backward(scores[:, unsure], transitions)
        path[:, unsure] = found = read_path(backward, transitions)
        log_probs[:, unsure] = path_log_probs(joint[:, unsure], following(found, unsure), continues, found)
        possible[unsure] = backward[0, :, -1] > IMPOSSIBLE / 2
    return np.where(inside & possible, path[1:-1], IGNORED), np.where(inside[..., None], log_probs, 0)


def add_boundary(emissions: ndarray, inside: ndarray) -> ndarray:
    """Return the log-scores of all states, (T + 2, B, S) in float64, from those of the tags, (T, B, K).

    Raises:
        ValueError: if an emission of a sequence is NaN or positive infinity.
    """
    timesteps, batch, num_tags = emissions.shape
    scores = np.full((timesteps + 2, batch, num_tags + 1), IMPOSSIBLE)
    scores[0, :, -1] = scores[-1, :, -1] = 0
    tags = scores[1:-1, :, :-1]
    np.copyto(tags, emissions, where=inside[..., None])
    if not scores.max() < np.inf:  # the maximum is NaN if any score is
        raise ValueError("emissions are NaN or infinite: the weights of the model are damaged, load others")
    np.copyto(scores[1:-1, :, -1], 0, where=~inside)
    return np.maximum(scores, IMPOSSIBLE, out=scores)  # the difference of two scores of -inf would be NaN


def best_backward(scores: ndarray, transitions: ndarray) -> ndarray:
    """Return the best score of the paths from each state on, its own included, (T + 2, B, S)."""
    backward = scores.copy()
    following = np.ascontiguousarray(transitions.T)[:, None]  # (S of the next timestep, 1, S)
    paths = np.empty((len(following), *scores.shape[1:]))  # (S of the next, B, S): the first is fastest to reduce
    best = np.empty(scores.shape[1:])  # (B, S)
    rows, columns = list(backward), list(backward.transpose(0, 2, 1)[..., None])  # (B, S), (S, B, 1) each
    for row, column in zip(rows[-2::-1], columns[:0:-1]):
        np.add(column, following, paths)
        np.maximum.reduce(paths, 0, out=best)
        np.add(row, best, row)
    return backward


def read_path(backward: ndarray, transitions: ndarray) -> ndarray:
    """Return the best path (T + 2, B): from the boundary on, the state with the best continuation."""
    path = np.full(backward.shape[:2], len(transitions) - 1)
    scores = np.empty(backward.shape[1:])
    previous, *rows = path
    for row, following in zip(rows, list(backward[1:])):
        transitions.take(previous, 0, scores, "clip")
        np.add(scores, following, scores)
        scores.argmax(-1, row)
        previous = row
    return path


def path_log_probs(joint: ndarray, following: ndarray, continues: ndarray, path: ndarray) -> ndarray:
    """Return the probabilities along `path` (T + 2, B) that [`decode`] returns, (T, B, 3), without the boundaries.

    `joint` and `following` are results of [`_scaled_weights`].
    """
    timesteps, sequences = np.arange(len(path))[:, None], np.arange(path.shape[1])
    ones = np.ones(joint.shape[-1])
    total = following @ ones
    marginal = joint[timesteps, sequences, path] / (joint @ ones)
    step = following[timesteps[:-1], sequences, path[1:]] / total
    leave = np.where(continues[path[:-1]], 0, following) @ ones / total
    with np.errstate(divide="ignore"):
        return np.log(np.stack([marginal[1:-1], step[:-1], leave[1:]], -1)).clip(-1e4, None)


Following = Callable[..., ndarray]
"""Function of a path (T + 2, B) and of its sequences, all by default."""


def _scaled_weights(scores: ndarray, transitions: ndarray) -> tuple[ndarray, Following] | None:
    """Return numbers that are proportional to P(y_t = k), and to P(y_t+1 = j | y_t) for y_t on a path.

    Returns:
        (T + 2, B, S), and a function that returns (T + 1, B, S), each row with a factor of its own; None if float64 is
        too small for the scores.
    """
    every = rescaling_interval(scores, transitions)
    if not every:
        return None
    shifted = scores - scores.max(-1, keepdims=True)
    emitted, weights = np.exp(shifted, out=shifted), np.exp(transitions)
    entered, _ = scaled_messages(emitted, weights, every)
    ahead, behind = entered[:, 0], entered[::-1, 1] * emitted
    if not (ahead[-1, :, -1] > 0).all():  # a sequence without any possible path needs the finite log-scores
        return None
    return ahead * behind, lambda path, sequences=slice(None): weights[path[:-1]] * behind[1:, sequences]


def _log_weights(scores: ndarray, transitions: ndarray) -> tuple[ndarray, Following]:
    """Return what [`_scaled_weights`] returns, for scores of any size."""
    ahead, behind = scores.copy(), scores.copy()  # each with the score of the state itself
    for t in range(1, len(scores)):
        ahead[t] += _log_sum_exp(ahead[t - 1][..., None] + transitions, 1)
        behind[-t - 1] += _log_sum_exp(behind[-t][:, None] + transitions, 2)
    joint = _exp(ahead + behind - scores)
    return joint, lambda path, sequences=slice(None): _exp(transitions[path[:-1]] + behind[1:, sequences])


def _exp(scores: ndarray) -> ndarray:
    """Return the exponentials of scores, each row with a factor of its own."""
    return np.exp(scores - scores.max(-1, keepdims=True))


def _log_sum_exp(scores: ndarray, axis: int) -> ndarray:
    largest = scores.max(axis, keepdims=True)
    return np.log(np.exp(scores - largest).sum(axis)) + largest.squeeze(axis)


def rescaling_interval(scores: ndarray, transitions: ndarray) -> int:
    """Return after how many timesteps at most [`scaled_messages`] has to rescale; 0 if float64 is too small anyway.

    Between two rescalings, and over the at most three steps in which a BIO or BIOES scheme leads from any tag to any
    other, the weight of a tag grows or falls by at most a factor of e^range per step, where `range` is the range of the
    scores of the tags plus that of the transitions.
    """
    score_range = sum(np.ptp(np.where(each > IMPOSSIBLE / 2, each, 0)) for each in (scores, transitions))
    return int(min(RESCALE_EVERY, max(0, FLOAT64_RANGE // max(score_range, 1) - 3)))


def scaled_messages(emitted: ndarray, weights: ndarray, every: int = RESCALE_EVERY) -> tuple[ndarray, ndarray]:
    """Compute the forward and the backward messages as probabilities, side by side (Rabiner, 1989, section V.A).

    Args:
        emitted: (T + 2, B, S), the exponentials of the scores of the states.
        weights: (S, S), those of the transitions.
        every: number of timesteps after which messages are scaled to a sum of 1.

    Returns:
        entered: (T + 2, 2, B, S), the messages without the state's own `emitted`, in the dimension of size 2 the
            forward ones and, in reversed time, the backward ones.
        scales: (T + 2, 2, B, 1), the sums by which the message at a timestep, with its own `emitted`, was divided.
    """
    both = np.stack([emitted, emitted[::-1]], 1)  # (T + 2, 2, B, S)
    steps = np.stack([weights, weights.T])  # (2, S, S)
    entered, scales = np.ones_like(both), np.ones((*both.shape[:3], 1))
    message = both[0]
    with np.errstate(invalid="ignore"):  # 0 / 0 in a sequence without any possible path
        for t, (own, out) in enumerate(zip(list(both[1:]), list(entered[1:])), 1):
            message = np.matmul(message, steps, out) * own
            if t % every == 0:
                np.add.reduce(message, -1, out=scales[t], keepdims=True)
                message /= scales[t]
    return entered, scales
