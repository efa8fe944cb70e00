"""Tests of the recursions in numpy, against the enumeration of all paths and against PyTorch's recursions."""

import itertools

import numpy as np
import pytest
import torch

from bilstm_crf_hf import LinearChainCRF
from bilstm_crf_hf.recursions import IMPOSSIBLE, decode, rescaling_interval

LABELS = ["O", "B-PS", "I-PS", "B-LC", "I-LC"]


def new_crf(constrained: bool, scale: float = 1.0) -> LinearChainCRF:
    torch.manual_seed(0)
    crf = LinearChainCRF(len(LABELS), labels=LABELS, constrained=constrained).eval()
    torch.nn.init.normal_(crf.transitions, std=scale)
    return crf


def arrays_of(crf: LinearChainCRF) -> tuple[np.ndarray, np.ndarray]:
    return crf.potentials().numpy(), crf.continues.numpy()


def enumerate_paths(scores: np.ndarray, transitions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all paths (paths, T) of one sequence (T, K), and their unnormalised log-scores in float128."""
    paths = np.array(list(itertools.product(range(scores.shape[1]), repeat=len(scores))))
    edges = np.full((len(paths), 1), len(transitions) - 1)
    states = np.hstack([edges, paths, edges])
    totals = scores.astype(np.longdouble)[np.arange(len(scores)), paths].sum(1)
    return paths, totals + transitions.astype(np.longdouble)[states[:, :-1], states[:, 1:]].sum(1)


@pytest.mark.parametrize("temperature", [1.0, 1.7, 3.0])
@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
def test_paths_and_probabilities_are_those_of_all_paths(scale, constrained, temperature):
    """The scales lead to rescaling after eight timesteps, after each, and to recursions over logarithms."""
    transitions, continues = arrays_of(new_crf(constrained))
    lengths = np.array([5, 1, 3, 0])
    emissions = scale * np.random.default_rng(0).uniform(-1, 1, (5, 4, len(LABELS)))
    padded = np.where((np.arange(5)[:, None] < lengths)[..., None], emissions, 0)
    assert {1.0: 8, 20.0: 8, 100.0: 0}[scale] >= rescaling_interval(padded, transitions) >= {1.0: 8}.get(scale, 0)
    paths, log_probs = decode(emissions, lengths, transitions, continues, temperature)
    for row, length in enumerate(lengths):
        assert (paths[length:, row] == -100).all()
        assert not log_probs[length:, row].any()
        if not length:
            continue
        every, totals = enumerate_paths(emissions[:length, row], transitions)
        best = every[totals.argmax()]
        assert paths[:length, row].tolist() == best.tolist()
        weights = np.exp((totals - totals.max()) / temperature)
        for t, tag in enumerate(best):
            here = every[:, t] == tag
            leaves = np.ones(len(every), bool)
            if t + 1 < length:
                leaves = ~continues[tag, every[:, t + 1]]
            before = here if t == 0 else every[:, t - 1] == best[t - 1]
            expected = [
                weights[here].sum() / weights.sum(),
                weights[here & before].sum() / (weights[before].sum() if t else weights.sum()),
                weights[here & leaves].sum() / weights[here].sum(),
            ]
            np.testing.assert_allclose(np.exp(log_probs[t, row]), np.array(expected, float), rtol=1e-8, atol=1e-300)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("batch", [1, 7])
def test_the_results_are_those_of_the_crf(scale, batch):
    crf = new_crf(True)
    emissions = scale * torch.randn(40, batch, len(LABELS), dtype=torch.float64)
    lengths = torch.randint(1, 41, (batch,))
    _, paths, log_probs = crf.posterior(emissions, torch.arange(40)[:, None] < lengths)
    found, found_log_probs = decode(emissions.numpy(), lengths.numpy(), *arrays_of(crf))
    assert found.tolist() == paths.tolist()
    # A probability below float64's smallest number counts as e^-10000.
    expected = np.where(log_probs.numpy() < -700, -1e4, log_probs.numpy())
    np.testing.assert_allclose(np.where(found_log_probs < -700, -1e4, found_log_probs), expected, rtol=1e-8, atol=1e-9)


def test_what_follows_a_sequence_does_not_matter():
    crf, rng = new_crf(True), np.random.default_rng(0)
    emissions = rng.normal(size=(9, 2, len(LABELS)))
    lengths = np.array([9, 4])
    results = []
    for filling in (0.0, 1e6, np.nan, np.inf):
        emissions[4:, 1] = filling
        results.append(decode(emissions, lengths, *arrays_of(crf)))
    for found in results[1:]:
        assert all((a == b).all() for a, b in zip(found, results[0], strict=True))


def test_a_sequence_without_a_possible_path_has_no_tags():
    transitions, continues = arrays_of(new_crf(True))
    emissions = np.full((3, 2, len(LABELS)), -np.inf)
    emissions[:, 0] = 0
    emissions[:, 1, LABELS.index("I-PS")] = 0  # nothing begins the entity
    paths, log_probs = decode(emissions, np.array([3, 3]), transitions, continues)
    assert (paths[:, 1] == -100).all()
    assert (paths[:, 0] >= 0).all()
    assert np.isfinite(log_probs[:, 0]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_emissions_that_are_no_numbers_are_an_error(value):
    emissions = np.zeros((3, 2, len(LABELS)))
    emissions[1, 1, 2] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        decode(emissions, np.array([3, 2]), *arrays_of(new_crf(True)))


def test_impossible_transitions_have_probability_zero():
    transitions, continues = arrays_of(new_crf(True))
    paths, log_probs = decode(np.zeros((6, 1, len(LABELS))), np.array([6]), transitions, continues)
    states = [len(LABELS), *paths[:, 0], len(LABELS)]
    assert (transitions[states[:-1], states[1:]] > IMPOSSIBLE / 2).all()
    assert np.exp(log_probs).max() <= 1 + 1e-12
