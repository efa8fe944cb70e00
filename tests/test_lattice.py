"""Both lattices, and Viterbi's recursion, against logsumexp written out one sentence at a time, and brute force."""

import itertools
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from bilstm_crf_hf import lattice
from bilstm_crf_hf.lattice import (
    IMPOSSIBLE,
    LogLattice,
    ScaledLattice,
    best_path,
    best_paths,
    enclose,
    forward_backward,
    is_moderate,
)

EXACT = {"rtol": 1e-9, "atol": 1e-9}
BIO = ("O", "B-인물", "I-인물", "B-지명", "I-지명")


class Potentials(NamedTuple):
    start: Tensor
    end: Tensor
    transitions: Tensor

    def steps(self) -> Tensor:
        """Between states: the last row holds starts, the last column ends."""
        steps = torch.nn.functional.pad(self.transitions, (0, 1, 0, 1))
        steps[-1, :-1], steps[:-1, -1] = self.start, self.end
        return steps


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=[LogLattice, ScaledLattice])
def lattice_class(request):
    return request.param


def random_potentials(num_tags: int, scale: float = 1.0) -> Potentials:
    return Potentials(
        *(torch.randn(shape, dtype=torch.float64) * scale for shape in (num_tags, num_tags, [num_tags] * 2))
    )


def bio_potentials(scale: float = 1.0) -> Potentials:
    """Random, without the steps that BIO has not: I-X at the start, or behind anything but B-X and I-X."""
    start, end, transitions = random_potentials(len(BIO), scale)
    for j, label in enumerate(BIO):
        if label[0] == "I":
            start[j] = IMPOSSIBLE
            transitions[[i for i, before in enumerate(BIO) if before[1:] != label[1:]], j] = IMPOSSIBLE
    return Potentials(start, end, transitions)


make_potentials = pytest.mark.parametrize(
    "make_potentials",
    [lambda: random_potentials(5), lambda: random_potentials(5, 1e3), bio_potentials],
    ids=["moderate", "large", "BIO"],
)


def random_emissions(timesteps: int, batch: int, num_tags: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """(T, B, K), 0 behind the ends, and lengths (B,), the first of which is T."""
    lengths = torch.randint(1, timesteps + 1, (batch,))
    lengths[0] = timesteps
    emissions = torch.randn(timesteps, batch, num_tags, dtype=torch.float64) * scale
    return emissions * (torch.arange(timesteps)[:, None] < lengths)[..., None], lengths


def inside(emissions: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(len(emissions))[:, None] < lengths


def run(lattice_class, emissions: Tensor, lengths: Tensor, potentials: Potentials):
    """A lattice over emissions whose padding holds numbers that must not reach any sum."""
    within = inside(emissions, lengths)
    noisy = torch.where(within[..., None], emissions, torch.randn_like(emissions))
    return lattice_class(noisy, within, potentials.steps())


def enclosed(emissions: Tensor, lengths: Tensor, potentials: Potentials) -> tuple[Tensor, Tensor]:
    return enclose(emissions, inside(emissions, lengths), torch.float64), potentials.steps()


def chosen(emissions: Tensor, within: Tensor, steps: Tensor):
    """As the CRF asks for it."""
    return forward_backward(emissions, within, steps, is_moderate(emissions, steps))


def log_ahead(emissions: Tensor, potentials: Potentials) -> list[Tensor]:
    """For one sentence (T, K): the log of the sum over all that follows from each tag on, at every timestep."""
    ahead = [emissions[-1] + potentials.end]
    for scores in emissions[:-1].flip(0):
        ahead.append(scores + (potentials.transitions + ahead[-1]).logsumexp(1))
    return ahead[::-1]


def reference(emissions: Tensor, lengths: Tensor, potentials: Potentials, weights: Tensor):
    """log Z (B,), its derivatives by emissions and by transitions (weighted), and the messages of each sentence."""
    emissions = emissions.clone().requires_grad_()
    potentials = Potentials(*(x.clone().requires_grad_() for x in potentials))
    ahead = [log_ahead(emissions[:length, row], potentials) for row, length in enumerate(lengths)]
    log_z = torch.stack([(potentials.start + messages[0]).logsumexp(0) for messages in ahead])
    weighted = torch.autograd.grad(
        log_z @ weights, (emissions, potentials.transitions), retain_graph=True, materialize_grads=True
    )
    posterior = torch.autograd.grad(log_z.sum(), emissions)[0]
    return log_z.detach(), posterior, weighted, [torch.stack(messages).detach() for messages in ahead]


def assert_matches(lattice, emissions, lengths, potentials, **tolerance) -> None:
    weights = torch.randn(len(lengths), dtype=torch.float64)
    log_z, posterior, (expected_tags, expected_pairs), ahead = reference(emissions, lengths, potentials, weights)
    within = inside(emissions, lengths)
    assert_close(lattice.log_z, log_z, **tolerance)
    assert_close(lattice.log_posterior().exp()[1:-1, :, :-1] * within[..., None], posterior, **tolerance)
    states, pairs = lattice.expectations(weights)
    assert_close(states[1:-1, :, :-1], expected_tags, **tolerance)
    assert_close(states[1:-1, :, -1], ~within * weights, **tolerance)
    assert_close(pairs[:-1, :-1], expected_pairs, **tolerance)
    assert_close(pairs[-1, :-1], expected_tags[0].sum(0), **tolerance)
    last = expected_tags[lengths - 1, torch.arange(len(lengths))]
    assert_close(pairs[:-1, -1], last.sum(0), **tolerance)
    for row, messages in enumerate(ahead):
        ours = lattice.log_ahead()[1 : len(messages) + 1, row, :-1]
        assert_close(ours.softmax(-1), messages.softmax(-1), **tolerance)


@pytest.mark.parametrize("num_tags", [1, 2, 13])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("timesteps", [1, 2, 4, 5, 9, 31])
def test_lattice_of_moderate_scores_sums_over_all_paths(lattice_class, timesteps, batch, num_tags):
    emissions, lengths = random_emissions(timesteps, batch, num_tags)
    potentials = random_potentials(num_tags)
    assert_matches(run(lattice_class, emissions, lengths, potentials), emissions, lengths, potentials, **EXACT)


def test_lattice_of_a_long_text_does_not_drift(lattice_class):
    emissions, lengths = random_emissions(300, 3, 5, scale=2)
    potentials = random_potentials(5)
    assert_matches(run(lattice_class, emissions, lengths, potentials), emissions, lengths, potentials, **EXACT)


@pytest.mark.parametrize("timesteps", [1, 2, 8, 20])
def test_lattice_skips_what_is_impossible(lattice_class, timesteps):
    emissions, lengths = random_emissions(timesteps, 3, len(BIO))
    potentials = bio_potentials()
    lattice = run(lattice_class, emissions, lengths, potentials)
    assert_matches(lattice, emissions, lengths, potentials, **EXACT)
    opened = [i for i, label in enumerate(BIO) if label[0] != "I"]
    posterior = lattice.log_posterior().exp()[1]
    assert_close(posterior[:, opened].sum(1), torch.ones(3, dtype=torch.float64))
    assert not lattice.expectations(torch.ones(3))[1][potentials.steps() == IMPOSSIBLE].any()


@pytest.mark.parametrize("scale", [30.0, 1e4])
@make_potentials
def test_log_lattice_is_right_for_scores_of_any_size(make_potentials, scale):
    """Also where a sentence is padded: what is computed behind its end must not reach the sums."""
    emissions, lengths = random_emissions(12, 6, 5, scale)
    potentials = make_potentials()
    assert_matches(
        run(LogLattice, emissions, lengths, potentials), emissions, lengths, potentials, rtol=1e-8, atol=1e-8
    )


def test_expectations_of_a_large_batch_are_summed_over_blocks(lattice_class):
    """So large that the pairs of LogLattice take three blocks of timesteps, of which the last is not full."""
    emissions, lengths = random_emissions(10, 128, 128)
    potentials = random_potentials(128)
    assert_matches(run(lattice_class, emissions, lengths, potentials), emissions, lengths, potentials, **EXACT)


@pytest.mark.parametrize("level", [-99.0, -50.0, 0.0, 50.0, 99.0])
@pytest.mark.parametrize("where", Potentials._fields)
def test_a_level_added_to_every_score_of_a_kind_changes_no_probability(where, level):
    """Whichever lattice it is that `forward_backward` chooses."""
    emissions, lengths = random_emissions(8, 3, 13, scale=0.1)
    potentials = random_potentials(13, scale=0.01)
    potentials = potentials._replace(**{where: getattr(potentials, where) + level})
    lattice = run(chosen, emissions, lengths, potentials)
    assert_matches(lattice, emissions, lengths, potentials, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("seed", range(20))
def test_forward_backward_is_right_for_the_most_uneven_scores_either_way(seed):
    """Scores that lie at one of two ends, whose distance is on this or on that side of what is moderate."""
    torch.manual_seed(seed)
    extent = float(torch.empty(()).uniform_(20, 120))
    potentials = bio_potentials() if seed % 2 else random_potentials(5)
    shares = torch.rand(4).square()
    *rest, share = (shares / shares.sum() * extent).tolist()
    potentials = Potentials(
        *(torch.where(x == IMPOSSIBLE, x, x.sign() * size / 2) for x, size in zip(potentials, rest))
    )
    emissions, lengths = random_emissions(17, 4, 5)
    emissions = emissions.sign() * share / 2
    lattice = run(chosen, emissions, lengths, potentials)
    assert_matches(lattice, emissions, lengths, potentials, rtol=1e-7, atol=1e-7)


def test_a_sentence_is_enclosed_in_timesteps_outside():
    emissions = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [torch.nan, -torch.inf]]])  # the second is padding
    scores = enclose(emissions, torch.tensor([[True, True], [True, False]]), torch.float64)
    never = IMPOSSIBLE
    assert scores[:, 0].tolist() == [[never, never, 0], [1, 2, never], [5, 6, never], [never, never, 0]]
    assert scores[:, 1].tolist() == [[never, never, 0], [3, 4, never], [never, never, 0], [never, never, 0]]


@pytest.mark.parametrize("k", [1, 3, 100])
@make_potentials
def test_best_paths_are_the_first_of_all_paths(make_potentials, k):
    emissions, lengths = random_emissions(4, 5, 5)
    lengths[1:] = torch.tensor([1, 2, 3, 4])
    start, end, transitions = potentials = make_potentials()
    paths, scores = best_paths(*enclosed(emissions, lengths, potentials), k)
    assert paths.shape == (k, 6, 5)
    for row, length in enumerate(lengths):
        every = torch.tensor(list(itertools.product(range(5), repeat=int(length))))
        totals = start[every[:, 0]] + transitions[every[:, :-1], every[:, 1:]].sum(1) + end[every[:, -1]]
        totals += emissions[torch.arange(length), row, every].sum(1)
        every, totals = every[totals > IMPOSSIBLE / 2], totals[totals > IMPOSSIBLE / 2]
        order = totals.argsort(descending=True)[:k]
        outside = torch.full((len(order), 5 - length), 5)
        assert paths[: len(order), 1:, row].equal(torch.cat([every[order], outside], 1))
        assert_close(scores[: len(order), row], totals[order], **EXACT)
        assert (scores[len(order) :, row] == -torch.inf).all()


@pytest.mark.parametrize("batch", [6, 1500], ids=["numpy", "threads"])
@make_potentials
def test_best_path_is_the_first_of_the_best_paths(make_potentials, batch):
    problem = enclosed(*random_emissions(40, batch, 5), make_potentials())
    path, score = best_path(*problem)
    paths, scores = best_paths(*problem, 1)
    assert path.equal(paths[0])
    assert_close(score, scores[0], **EXACT)


@pytest.mark.parametrize("timesteps", [1, 2, 5, 6, 7, 40])
@make_potentials
def test_recursions_by_halves_give_what_recursions_by_steps_give(make_potentials, timesteps):
    """Which run where there is no CPU."""
    scores, steps = enclosed(*random_emissions(timesteps, 6, 5), make_potentials())
    for total in (torch.logsumexp, torch.amax):
        ours = lattice._messages_by_halves(scores, steps, total)
        for x, y in zip(ours, lattice._messages_by_steps(scores, steps, total)):
            possible = y > IMPOSSIBLE / 2
            assert_close(x[possible], y[possible], **EXACT)
            assert (x[~possible] < IMPOSSIBLE / 2).all()
    ahead = lattice._best_ahead(scores, steps)
    assert_close(ours[1][ahead > IMPOSSIBLE / 2], ahead[ahead > IMPOSSIBLE / 2], **EXACT)
    assert lattice._follow_by_halves(ahead, steps).equal(lattice._follow(ahead, steps))
