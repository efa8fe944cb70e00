"""Tests of the forward-backward and Viterbi recursions, against a plain logsumexp recursion and brute force."""

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
    add_boundary,
    best_path,
    best_paths,
    forward_backward,
)
from bilstm_crf_hf.recursions import best_backward, read_path

EXACT = {"rtol": 1e-9, "atol": 1e-9}
BIO = ("O", "B-인물", "I-인물", "B-지명", "I-지명")


class Potentials(NamedTuple):
    start: Tensor
    end: Tensor
    transitions: Tensor

    def state_transitions(self) -> Tensor:
        """Return the transitions between states, (S, S): the last row holds the starts, the last column the ends."""
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
    """Return random potentials in which I-X is impossible at the start and after anything but B-X and I-X."""
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
    """Return emissions (T, B, K), 0 after the end of each sequence, and lengths (B,), the first of which is T."""
    lengths = torch.randint(1, timesteps + 1, (batch,))
    lengths[0] = timesteps
    emissions = torch.randn(timesteps, batch, num_tags, dtype=torch.float64) * scale
    return emissions * (torch.arange(timesteps)[:, None] < lengths)[..., None], lengths


def mask_of(emissions: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(len(emissions))[:, None] < lengths


def noisy_lattice(lattice_class, emissions: Tensor, lengths: Tensor, potentials: Potentials):
    """Build a lattice over emissions whose padding is filled with random numbers, which must not reach any sum."""
    mask = mask_of(emissions, lengths)
    noisy = torch.where(mask[..., None], emissions, torch.randn_like(emissions))
    return lattice_class(noisy, mask, potentials.state_transitions())


def state_scores(emissions: Tensor, lengths: Tensor, potentials: Potentials) -> tuple[Tensor, Tensor]:
    return add_boundary(emissions, mask_of(emissions, lengths), torch.float64), potentials.state_transitions()


def log_backward(emissions: Tensor, potentials: Potentials) -> list[Tensor]:
    """Return, for each timestep of one sequence (T, K), the log-sum over all continuations from each tag on, (K,)."""
    ahead = [emissions[-1] + potentials.end]
    for scores in emissions[:-1].flip(0):
        ahead.append(scores + (potentials.transitions + ahead[-1]).logsumexp(1))
    return ahead[::-1]


def reference(emissions: Tensor, lengths: Tensor, potentials: Potentials, weights: Tensor):
    """Compute what a lattice should return, one sequence at a time.

    Returns:
        log Z, (B,); the marginals, (T, B, K); the derivatives of `weights @ log Z` with respect to emissions and
        transitions; the backward messages of each sequence.
    """
    emissions = emissions.clone().requires_grad_()
    potentials = Potentials(*(x.clone().requires_grad_() for x in potentials))
    ahead = [log_backward(emissions[:length, row], potentials) for row, length in enumerate(lengths)]
    log_z = torch.stack([(potentials.start + messages[0]).logsumexp(0) for messages in ahead])
    weighted = torch.autograd.grad(
        log_z @ weights, (emissions, potentials.transitions), retain_graph=True, materialize_grads=True
    )
    posterior = torch.autograd.grad(log_z.sum(), emissions)[0]
    return log_z.detach(), posterior, weighted, [torch.stack(messages).detach() for messages in ahead]


def assert_matches(lattice_class, emissions, lengths, potentials, **tolerance) -> None:
    """Compare everything that a lattice returns with `reference`."""
    lattice = noisy_lattice(lattice_class, emissions, lengths, potentials)
    weights = torch.randn(len(lengths), dtype=torch.float64)
    log_z, posterior, (expected_tags, expected_pairs), ahead = reference(emissions, lengths, potentials, weights)
    mask = mask_of(emissions, lengths)
    assert_close(lattice.log_z, log_z, **tolerance)
    assert_close(lattice.log_marginals().exp()[1:-1, :, :-1] * mask[..., None], posterior, **tolerance)
    states, pairs = lattice.expected_counts(weights)
    assert_close(states[1:-1, :, :-1], expected_tags, **tolerance)
    assert_close(states[1:-1, :, -1], ~mask * weights, **tolerance)
    assert_close(pairs[:-1, :-1], expected_pairs, **tolerance)
    assert_close(pairs[-1, :-1], expected_tags[0].sum(0), **tolerance)
    last = expected_tags[lengths - 1, torch.arange(len(lengths))]
    assert_close(pairs[:-1, -1], last.sum(0), **tolerance)
    for row, messages in enumerate(ahead):
        ours = lattice.log_backward()[1 : len(messages) + 1, row, :-1]
        assert_close(ours.softmax(-1), messages.softmax(-1), **tolerance)


@pytest.mark.parametrize("num_tags", [1, 2, 13])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("timesteps", [1, 2, 4, 5, 9, 31])
def test_lattice_of_moderate_scores_sums_over_all_paths(lattice_class, timesteps, batch, num_tags):
    emissions, lengths = random_emissions(timesteps, batch, num_tags)
    potentials = random_potentials(num_tags)
    assert_matches(lattice_class, emissions, lengths, potentials, **EXACT)


def test_lattice_of_a_long_text_is_as_exact_as_that_of_a_short_one(lattice_class):
    emissions, lengths = random_emissions(300, 3, 5, scale=2)
    potentials = random_potentials(5)
    assert_matches(lattice_class, emissions, lengths, potentials, **EXACT)


@pytest.mark.parametrize("timesteps", [1, 2, 8, 20])
def test_impossible_transitions_have_probability_zero(lattice_class, timesteps):
    emissions, lengths = random_emissions(timesteps, 3, len(BIO))
    potentials = bio_potentials()
    lattice = noisy_lattice(lattice_class, emissions, lengths, potentials)
    assert_matches(lattice_class, emissions, lengths, potentials, **EXACT)
    opened = [i for i, label in enumerate(BIO) if label[0] != "I"]
    posterior = lattice.log_marginals().exp()[1]
    assert_close(posterior[:, opened].sum(1), torch.ones(3, dtype=torch.float64))
    assert not lattice.expected_counts(torch.ones(3))[1][potentials.state_transitions() == IMPOSSIBLE].any()


@pytest.mark.parametrize("scale", [30.0, 1e4])
@make_potentials
def test_log_lattice_is_exact_for_scores_of_any_size(make_potentials, scale):
    emissions, lengths = random_emissions(12, 6, 5, scale)
    potentials = make_potentials()
    assert_matches(LogLattice, emissions, lengths, potentials, rtol=1e-8, atol=1e-8)


def test_expected_counts_of_a_large_batch_are_summed_over_blocks(lattice_class):
    """Use a batch so large that LogLattice needs three blocks of timesteps, the last of which is not full."""
    emissions, lengths = random_emissions(10, 128, 128)
    potentials = random_potentials(128)
    assert_matches(lattice_class, emissions, lengths, potentials, **EXACT)


@pytest.mark.parametrize("constant", [-99.0, -50.0, 0.0, 50.0, 99.0])
@pytest.mark.parametrize("where", Potentials._fields)
def test_a_constant_added_to_all_scores_of_a_kind_changes_no_probability(where, constant):
    """Check the lattice that `forward_backward` chooses, on either side of the limit of scaling."""
    emissions, lengths = random_emissions(8, 3, 13, scale=0.1)
    potentials = random_potentials(13, scale=0.01)
    potentials = potentials._replace(**{where: getattr(potentials, where) + constant})
    assert_matches(forward_backward, emissions, lengths, potentials, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("seed", range(20))
def test_forward_backward_is_exact_for_extreme_scores_on_both_sides_of_the_limit_of_scaling(seed):
    """Use scores that are all at one of the two ends of a range, which is below or above the limit."""
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
    assert_matches(forward_backward, emissions, lengths, potentials, rtol=1e-7, atol=1e-7)


def test_add_boundary_puts_a_boundary_before_and_after_each_sequence():
    emissions = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [torch.nan, -torch.inf]]])  # the second is padding
    scores = add_boundary(emissions, torch.tensor([[True, True], [True, False]]), torch.float64)
    never = IMPOSSIBLE
    assert scores[:, 0].tolist() == [[never, never, 0], [1, 2, never], [5, 6, never], [never, never, 0]]
    assert scores[:, 1].tolist() == [[never, never, 0], [3, 4, never], [never, never, 0], [never, never, 0]]


@pytest.mark.parametrize("k", [1, 3, 100])
@make_potentials
def test_best_paths_are_the_highest_scoring_of_all_paths(make_potentials, k):
    emissions, lengths = random_emissions(4, 5, 5)
    lengths[1:] = torch.tensor([1, 2, 3, 4])
    start, end, transitions = potentials = make_potentials()
    paths, scores = best_paths(*state_scores(emissions, lengths, potentials), k)
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
    problem = state_scores(*random_emissions(40, batch, 5), make_potentials())
    path, score = best_path(*problem)
    paths, scores = best_paths(*problem, 1)
    assert path.equal(paths[0])
    assert_close(score, scores[0], **EXACT)


@pytest.mark.parametrize("timesteps", [1, 2, 5, 6, 7, 40])
@make_potentials
def test_parallel_scans_equal_the_sequential_recursions(make_potentials, timesteps):
    """Check on the CPU what runs on other devices."""
    scores, steps = state_scores(*random_emissions(timesteps, 6, 5), make_potentials())
    for total in (torch.logsumexp, torch.amax):
        ours = lattice._scan_messages(scores, steps, total)
        for x, y in zip(ours, lattice._sequential_messages(scores, steps, total)):
            possible = y > IMPOSSIBLE / 2
            assert_close(x[possible], y[possible], **EXACT)
            assert (x[~possible] < IMPOSSIBLE / 2).all()
    ahead = torch.from_numpy(best_backward(scores.numpy(), steps.numpy()))
    assert_close(ours[1][ahead > IMPOSSIBLE / 2], ahead[ahead > IMPOSSIBLE / 2], **EXACT)
    assert lattice._scan_path(ahead, steps).numpy().tolist() == read_path(ahead.numpy(), steps.numpy()).tolist()
