"""Tests of LinearChainCRF against brute force over all paths, against pytorch-crf and against seqeval's entities."""

import copy
import gc
import inspect
import itertools
import pickle
import re
from contextlib import nullcontext
from functools import lru_cache
from types import SimpleNamespace

import pytest
import torch
from seqeval.metrics.sequence_labeling import get_entities
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.testing import assert_close
from torchcrf import CRF

from bilstm_crf_hf.crf import LinearChainCRF, allowed_transitions
from bilstm_crf_hf.lattice import LogLattice, ScaledLattice

BIO = ("O", "B-인물", "I-인물", "B-지명", "I-지명")
BIOES = ("O", "B-인물", "I-인물", "E-인물", "S-인물")
LONG_BIOES = (*BIOES, "B-지명", "I-지명", "E-지명", "S-지명")
PAIRS = ("B-인물", "E-인물")  # all possible paths have an even length
POLARITY = ("긍정", "중립", "부정")
GRAMMARS = {
    BIO: re.compile(r"(?:O |B-(\w+) (?:I-\1 )*)*"),
    BIOES: re.compile(r"(?:O |S-\w+ |B-(\w+) (?:I-\1 )*E-\1 )*"),
}
GRAMMARS[LONG_BIOES] = GRAMMARS[PAIRS] = GRAMMARS[BIOES]
REDUCTIONS = ("none", "sum", "mean", "token_mean")
EXACT = {"rtol": 1e-9, "atol": 1e-9}

pytestmark = pytest.mark.filterwarnings("ignore:.*uint8.*:UserWarning")  # from torchcrf, for such masks


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# ---------------------------------------------------------------- reference: brute force over all paths


def obeys(labels: tuple[str, ...] | None, path) -> bool:
    """Return whether a path of tags follows the scheme of the labels; any path does if they have none."""
    grammar = GRAMMARS.get(labels)
    return grammar is None or bool(grammar.fullmatch("".join(f"{labels[tag]} " for tag in path)))


@lru_cache
def possible_paths(num_tags: int, timesteps: int, labels: tuple[str, ...] | None) -> Tensor:
    paths = itertools.product(range(num_tags), repeat=timesteps)
    return torch.tensor([path for path in paths if obeys(labels, path)])


def every_path(crf: CRF, emissions: Tensor) -> tuple[Tensor, Tensor]:
    """Return all possible paths (N, T) of one sentence with emissions (T, K), and their scores (N,) in float64."""
    timesteps, num_tags = emissions.shape
    paths = possible_paths(num_tags, timesteps, getattr(crf, "labels", None))
    start, end, transitions = (x.double() for x in (crf.start_transitions, crf.end_transitions, crf.transitions))
    emitted = emissions.double()[torch.arange(timesteps), paths].sum(1)
    moved = transitions[paths[:, :-1], paths[:, 1:]].sum(1)
    return paths, start[paths[:, 0]] + emitted + moved + end[paths[:, -1]]


def log_likelihood(crf: CRF, emissions: Tensor, tags: Tensor) -> Tensor:
    """Return log P(tags) of one sentence, summed over all completions of the tags that are -100."""
    paths, scores = every_path(crf, emissions)
    agrees = ((paths == tags) | (tags == -100)).all(1)
    return scores[agrees].logsumexp(0) - scores.logsumexp(0)


def reduced(values: Tensor, lengths: Tensor, reduction: str) -> Tensor:
    return {
        "none": values,
        "sum": values.sum(),
        "mean": values.sum() / len(values),
        "token_mean": values.sum() / lengths.sum(),
    }[reduction]


def padded(rows: list[Tensor], length: int, value: float = 0) -> Tensor:
    """Stack tensors of unequal length to (B, length, ...)."""
    return torch.stack([torch.cat([x, x.new_full((length - len(x), *x.shape[1:]), value)]) for x in rows])


def gradients(value: Tensor, crf: CRF, emissions: Tensor) -> list[Tensor]:
    inputs = [emissions, crf.start_transitions, crf.end_transitions, crf.transitions]
    return list(torch.autograd.grad(value, inputs, materialize_grads=True))


def random_crf(num_tags: int, labels=None, scale: float = 1.0, dtype=torch.float64, crf_class=LinearChainCRF) -> CRF:
    """Return a batch-first CRF whose parameters are normal with the standard deviation `scale`."""
    crf = crf_class(num_tags, batch_first=True, **({} if labels is None else {"labels": labels})).to(dtype)
    for parameter in crf.parameters():
        nn.init.normal_(parameter, std=scale)
    return crf


def random_problem(crf: CRF, lengths: list[int], scale: float = 1.0) -> SimpleNamespace:
    """Return random emissions (B, T, K), a mask of the lengths, and gold tags that the labels of the CRF allow."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    emissions = torch.randn(*mask.shape, crf.num_tags, dtype=crf.transitions.dtype) * scale
    emissions.requires_grad_()
    gold = []
    for length in lengths:
        paths = possible_paths(crf.num_tags, length, getattr(crf, "labels", None))
        gold.append(paths[torch.randint(len(paths), ())])
    return SimpleNamespace(
        crf=crf, emissions=emissions, mask=mask, lengths=torch.tensor(lengths), tags=padded(gold, max(lengths))
    )


def sentences(problem) -> list[tuple[Tensor, Tensor]]:
    """Return the emissions (T, K) and the tags (T,) of each sentence, without padding."""
    return [(e[:n], y[:n]) for e, y, n in zip(problem.emissions, problem.tags, problem.lengths)]


@pytest.fixture(params=[1.0, 300.0], ids=["moderate", "large"])
def scale(request):
    return request.param


@pytest.fixture(
    params=[(1, None), (4, None), (3, POLARITY), (5, BIO), (5, BIOES)],
    ids=["one tag", "four tags", "polarity", "BIO", "BIOES"],
)
def problem(request, scale):
    """Return a CRF with a batch of sentences of one to five tokens."""
    crf = random_crf(*request.param, scale)
    return random_problem(crf, [4, 1, 5, 2, 3, 5], scale)


# ---------------------------------------------------------------- compatibility with pytorch-crf


@pytest.fixture(params=[CRF, LinearChainCRF])
def crf_class(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["time first", "batch first"])
def batch_first(request):
    return request.param


@pytest.fixture(params=["no mask", torch.bool, torch.uint8, torch.int64], ids=str)
def batch(request, crf_class, batch_first):
    """Return a batch-first problem with its CRF and the arguments of that CRF in the layout of `batch_first`."""
    if crf_class is CRF and request.param is torch.int64:
        pytest.skip("torchcrf accepts only boolean and uint8 masks")
    problem = random_problem(random_crf(4, crf_class=crf_class), [3, 3, 3] if request.param == "no mask" else [3, 5, 1])
    crf = crf_class(4, batch_first)
    crf.double().load_state_dict(problem.crf.state_dict())
    inward = [problem.emissions.detach(), problem.tags, problem.mask]
    problem.arguments = inward if batch_first else [x.transpose(0, 1) for x in inward]
    problem.arguments[2] = None if request.param == "no mask" else problem.arguments[2].to(request.param)
    problem.crf = crf
    return problem


def test_signatures_are_pytorch_crfs():
    for name in ("forward", "decode"):
        ours, theirs = (inspect.signature(getattr(x, name)).parameters.values() for x in (LinearChainCRF, CRF))
        assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs]


def test_attributes_are_the_arguments(crf_class, batch_first):
    crf = crf_class(10, batch_first=batch_first)
    assert (crf.num_tags, crf.batch_first) == (10, batch_first)
    assert repr(crf) == "CRF(num_tags=10)"
    assert not crf_class(10).batch_first


def test_parameters_have_pytorch_crfs_names_and_shapes(crf_class):
    parameters = dict(crf_class(10).named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    assert shapes == {"start_transitions": (10,), "end_transitions": (10,), "transitions": (10, 10)}
    assert all(isinstance(parameter, nn.Parameter) for parameter in parameters.values())


def test_parameters_begin_between_minus_and_plus_a_tenth(crf_class):
    crf = crf_class(30)
    before = crf.transitions.clone()
    crf.reset_parameters()
    assert not crf.transitions.equal(before)
    for parameter in crf.parameters():
        assert -0.1 <= parameter.min() < -0.05
        assert 0.05 < parameter.max() <= 0.1


@pytest.mark.parametrize("num_tags", [0, -1])
def test_number_of_tags_must_be_positive(crf_class, num_tags):
    with pytest.raises(ValueError, match=f"^invalid number of tags: {num_tags}$"):
        crf_class(num_tags)


def test_log_likelihood_is_that_of_all_paths_in_either_layout(batch):
    emissions, tags, mask = batch.arguments
    expected = torch.stack([log_likelihood(batch.crf, *sentence) for sentence in sentences(batch)])
    for reduction in REDUCTIONS:
        value = batch.crf(emissions, tags, mask=mask, reduction=reduction)
        assert_close(value, reduced(expected, batch.lengths, reduction), **EXACT)
    assert_close(batch.crf(emissions, tags, mask), expected.sum(), **EXACT)


def test_decode_lists_the_best_of_all_paths_in_either_layout(batch):
    emissions, _, mask = batch.arguments
    decoded = batch.crf.decode(emissions, mask=mask)
    assert decoded == [best.tolist() for best in map(best_path, [batch.crf] * 3, (e for e, _ in sentences(batch)))]
    assert all(type(tag) is int for path in decoded for tag in path)


def best_path(crf: CRF, emissions: Tensor) -> Tensor:
    paths, scores = every_path(crf, emissions)
    return paths[scores.argmax()]


def test_tags_may_be_int32(batch):
    emissions, tags, mask = batch.arguments
    assert_close(batch.crf(emissions, tags.int(), mask), batch.crf(emissions, tags.long(), mask), rtol=0, atol=0)


def test_no_sentences_have_the_log_likelihood_zero_and_no_paths(crf_class, batch_first):
    emissions, tags = torch.randn(3, 0, 4), torch.zeros(3, 0, dtype=torch.long)
    if batch_first:
        emissions, tags = emissions.transpose(0, 1), tags.T
    crf = crf_class(4, batch_first)
    assert crf(emissions, tags).item() == 0
    assert crf.decode(emissions) == []


@pytest.mark.parametrize(
    ("emissions", "tags", "mask", "message"),
    [
        ((1, 2), (2, 2), None, "emissions must have dimension of 3, got 2"),
        ((1, 2, 3), (1, 2), None, "expected last dimension of emissions is 10, got 3"),
        (
            (1, 2, 10),
            (2, 2),
            None,
            "the first two dimensions of emissions and tags must match, got (1, 2) and (2, 2)",
        ),
        (
            (1, 2, 10),
            (1, 2),
            (2, 2),
            "the first two dimensions of emissions and mask must match, got (1, 2) and (2, 2)",
        ),
    ],
)
def test_shapes_that_do_not_match_raise_the_errors_of_pytorch_crf(
    crf_class, batch_first, emissions, tags, mask, message
):
    crf = crf_class(10, batch_first)
    emissions, tags = torch.randn(emissions), torch.zeros(tags, dtype=torch.long)
    mask = None if mask is None else torch.ones(mask, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        crf(emissions, tags, mask)
    if "tags must match" not in message:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            crf.decode(emissions, mask)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_a_first_timestep_off_the_mask_is_an_error(crf_class, batch_first, dtype):
    mask = torch.tensor([[1, 1, 1], [0, 0, 0]], dtype=dtype)
    tags = torch.zeros(2, 3, dtype=torch.long)
    emissions = torch.randn(2, 3, 4)
    arguments = [x if batch_first else x.transpose(0, 1) for x in (emissions, tags, mask)]
    crf = crf_class(4, batch_first)
    with pytest.raises(ValueError, match="^mask of the first timestep must all be on$"):
        crf(*arguments)
    with pytest.raises(ValueError, match="^mask of the first timestep must all be on$"):
        crf.decode(arguments[0], arguments[2])


@pytest.mark.parametrize(
    ("mask", "reduction", "message"),
    [
        (torch.tensor([[True, False], [True, False]]), "sum", "mask of the first timestep must all be on"),
        (torch.ones(1, 2).bool(), "sum", "the first two dimensions of emissions and mask must match"),
        (None, "foo", "invalid reduction: foo"),
    ],
    ids=["first timestep", "shape of the mask", "reduction"],
)
def test_mask_and_reduction_are_validated_before_the_tags(crf_class, mask, reduction, message):
    """Pass invalid tags too, since pytorch-crf's own tests pass `torch.empty` where they expect these errors."""
    with pytest.raises(ValueError, match=message):
        crf_class(4)(torch.randn(2, 2, 4), torch.full((2, 2), 10**12), mask, reduction)


def test_an_unknown_reduction_is_an_error(crf_class):
    with pytest.raises(ValueError, match="^invalid reduction: foo$"):
        crf_class(4)(torch.randn(3, 2, 4), torch.zeros(3, 2, dtype=torch.long), reduction="foo")


@pytest.mark.parametrize(("origin", "target"), [(CRF, LinearChainCRF), (LinearChainCRF, CRF)])
def test_state_dict_loads_strictly_either_way(origin, target):
    origin, target = origin(5, batch_first=True), target(5, batch_first=True)
    target.load_state_dict(origin.state_dict(), strict=True)
    emissions, tags = torch.randn(2, 6, 5), torch.randint(5, (2, 6))
    assert_close(target(emissions, tags), origin(emissions, tags))
    assert target.decode(emissions) == origin.decode(emissions)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradient_equals_that_of_pytorch_crfs_autograd(reduction, scale):
    theirs = random_crf(13, scale=scale, crf_class=CRF)
    ours = LinearChainCRF(13, batch_first=True).double()
    ours.load_state_dict(theirs.state_dict())
    lengths = torch.tensor([40, 1, 17, 2, 33, 40, 8, 25])
    mask = torch.arange(40) < lengths[:, None]
    emissions = (torch.randn(8, 40, 13, dtype=torch.float64) * scale).requires_grad_()
    tags = torch.randint(13, (8, 40))
    weights = torch.randn(8) if reduction == "none" else 1
    expected = theirs(emissions, tags, mask, reduction)
    value = ours(emissions, tags, mask, reduction)
    assert_close(value, expected, **EXACT)
    assert_close(
        gradients((value * weights).sum(), ours, emissions),
        gradients((expected * weights).sum(), theirs, emissions),
        **EXACT,
    )


# ---------------------------------------------------------------- exactness: brute force over all paths


@pytest.mark.parametrize("unknown", [0.0, 0.5])
def test_log_likelihood_and_gradient_are_those_of_all_completions(problem, unknown):
    """Compare with the sum over all paths that agree with the known tags, with a random weight for each sentence."""
    problem.tags[torch.rand(problem.tags.shape) < unknown] = -100
    value = problem.crf(problem.emissions, problem.tags, problem.mask, reduction="none")
    expected = torch.stack([log_likelihood(problem.crf, *sentence) for sentence in sentences(problem)])
    assert_close(value, expected, **EXACT)
    weights = torch.randn(len(expected), dtype=torch.float64)
    assert_close(
        gradients(value @ weights, problem.crf, problem.emissions),
        gradients(expected @ weights, problem.crf, problem.emissions),
        **EXACT,
    )


def test_value_and_gradient_are_zero_if_every_tag_is_unknown(problem):
    value = problem.crf(problem.emissions, torch.full_like(problem.tags, -100), problem.mask, reduction="none")
    assert not value.any()
    weights = torch.randn(len(value), dtype=torch.float64)
    for gradient in gradients(value @ weights, problem.crf, problem.emissions):
        assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_unknown_tags_of_one_sentence_do_not_change_the_others(problem):
    """Pad tags with -100, which is not an unknown tag after the end of a sentence."""
    problem.tags.masked_fill_(~problem.mask, -100)
    known = problem.crf(problem.emissions, problem.tags, problem.mask, reduction="none")
    problem.tags[0] = -100
    value = problem.crf(problem.emissions, problem.tags, problem.mask, reduction="none")
    assert value[0] == 0
    assert_close(value[1:], known[1:], **EXACT)


def test_marginals_are_sums_over_all_paths(problem):
    expected = []
    for emissions, _ in sentences(problem):
        paths, scores = every_path(problem.crf, emissions)
        chosen = nn.functional.one_hot(paths, problem.crf.num_tags).double()
        expected.append(torch.einsum("ntk,n->tk", chosen, scores.softmax(0)))
    expected = padded(expected, 5)
    assert_close(problem.crf.marginals(problem.emissions, problem.mask), expected.detach(), **EXACT)
    log_marginals = problem.crf.posterior(problem.emissions, problem.mask)[0]
    assert_close(log_marginals.exp() * problem.mask[..., None], expected.detach(), **EXACT)
    assert log_marginals.min() >= -1e4
    assert not log_marginals[~problem.mask].any()


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_temperature_divides_the_scores_of_all_paths_in_evaluation(problem, temperature):
    """Compare likelihood, gradient and marginals with a softmax over the divided scores of all paths."""
    crf = problem.crf.eval()
    paths_before = crf.viterbi(problem.emissions, problem.mask), *crf.nbest(problem.emissions, problem.mask, 3)
    crf.temperature = temperature
    expected, marginals = [], []
    for emissions, tags in sentences(problem):
        paths, scores = every_path(crf, emissions)
        probabilities = (scores / temperature).log_softmax(0)
        expected.append(probabilities[(paths == tags).all(1)].sum())
        chosen = nn.functional.one_hot(paths, crf.num_tags).double()
        marginals.append(torch.einsum("ntk,n->tk", chosen, probabilities.exp()))
    value = crf(problem.emissions, problem.tags, problem.mask, reduction="none")
    expected, marginals = torch.stack(expected), padded(marginals, 5).detach()
    assert_close(value, expected, **EXACT)
    assert_close(
        gradients(value.sum(), crf, problem.emissions), gradients(expected.sum(), crf, problem.emissions), **EXACT
    )
    assert_close(crf.marginals(problem.emissions, problem.mask), marginals, **EXACT)
    log_marginals, best, _ = crf.posterior(problem.emissions, problem.mask)
    assert_close(log_marginals.exp() * problem.mask[..., None], marginals, **EXACT)
    paths = crf.viterbi(problem.emissions, problem.mask), *crf.nbest(problem.emissions, problem.mask, 3)
    assert all(map(torch.equal, paths, paths_before))
    assert best.equal(paths[0])


@pytest.mark.parametrize("labels", [BIO, BIOES])
def test_a_temperature_divides_the_scores_that_entities_are_probable_by(labels):
    """Compare with a CRF whose emissions and parameters are divided."""
    crf = random_crf(5, labels).eval()
    divided = copy.deepcopy(crf)
    problem = random_problem(crf, [4, 1, 5])
    crf.temperature = 2.5
    for parameter in divided.parameters():
        parameter.data /= 2.5
    found = crf.posterior(problem.emissions, problem.mask)
    for ours, theirs in zip(found, divided.posterior(problem.emissions / 2.5, problem.mask), strict=True):
        assert_close(ours, theirs, **EXACT)
    low = problem.emissions.to(torch.bfloat16)  # divided in float64: rounding a second time would change the scores
    for ours, theirs in zip(
        crf.posterior(low, problem.mask), divided.posterior(low.double() / 2.5, problem.mask), strict=True
    ):
        assert_close(ours, theirs.to(ours.dtype))


def test_training_knows_no_temperature(problem):
    plain = problem.crf(problem.emissions, problem.tags, problem.mask)
    expected = gradients(plain, problem.crf, problem.emissions)
    problem.crf.temperature = 3.0
    value = problem.crf(problem.emissions, problem.tags, problem.mask)
    assert value == plain
    assert all(map(torch.equal, gradients(value, problem.crf, problem.emissions), expected))


@pytest.mark.parametrize("k", [1, 4, 150])
def test_nbest_are_the_highest_scoring_of_all_paths_in_order(problem, k):
    """Sentences of three tokens have at most 125 paths: missing paths are -100 and have a score of -inf."""
    expected_paths = torch.full((k, 6, 5), -100)
    expected_scores = torch.full((k, 6), -torch.inf, dtype=torch.float64)
    for row, (emissions, _) in enumerate(sentences(problem)):
        paths, scores = every_path(problem.crf, emissions)
        order = scores.detach().argsort(descending=True)[:k]
        expected_paths[: len(order), row, : len(emissions)] = paths[order]
        expected_scores[: len(order), row] = scores[order].detach()
    paths, scores = problem.crf.nbest(problem.emissions, problem.mask, k)
    assert_close(scores, expected_scores, **EXACT)
    assert paths.equal(expected_paths)


def test_all_methods_return_the_same_best_path(problem):
    best = [best_path(problem.crf, emissions) for emissions, _ in sentences(problem)]
    expected = padded(best, 5, -100)
    assert problem.crf.viterbi(problem.emissions, problem.mask).equal(expected)
    assert problem.crf.posterior(problem.emissions, problem.mask)[1].equal(expected)
    assert problem.crf.decode(problem.emissions, problem.mask) == [path.tolist() for path in best]


def continues(labels: tuple[str, ...] | None, tag: int, following: int) -> bool:
    """Return whether seqeval counts a tag and the following one as one entity, not as two."""
    if labels not in GRAMMARS or labels[tag][:2] not in ("B-", "I-") or labels[following][:2] not in ("I-", "E-"):
        return False
    return labels[tag][2:] == labels[following][2:]


def test_path_log_probs_are_conditionals_of_the_best_path(problem):
    """Compare with P(y_t), P(y_t | y_t-1) and P(y_t+1 does not continue the entity of y_t | y_t) by brute force."""
    crf = problem.crf
    expected = []
    for emissions, _ in sentences(problem):
        paths, scores = every_path(crf, emissions.detach())
        best = paths[scores.argmax()]
        rows = []
        for t, tag in enumerate(best):
            here = paths[:, t] == tag
            before = paths[:, t - 1] == best[t - 1] if t else here | True
            leaves = here.clone()
            if t + 1 < len(best):
                leaves &= torch.tensor([not continues(crf.labels, int(tag), int(y)) for y in paths[:, t + 1]])
            total, at = scores.logsumexp(0), scores[here].logsumexp(0)
            step = scores[here & before].logsumexp(0) - scores[before].logsumexp(0)
            rows.append(torch.stack([at - total, step, (scores[leaves].logsumexp(0) - at).clamp(min=-1e4)]))
        expected.append(torch.stack(rows))
    path_log_probs = crf.posterior(problem.emissions, problem.mask)[2]
    assert_close(path_log_probs, padded(expected, 5).detach(), **EXACT)


@pytest.mark.parametrize("labels", [BIO, BIOES, LONG_BIOES], ids=["BIO", "BIOES", "BIOES of two types"])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_path_log_probs_multiply_to_the_probability_of_exactly_this_entity(labels, temperature):
    """Compare with the sum over all paths in which seqeval finds the same entity."""
    problem = random_problem(random_crf(len(labels), labels, temperature), [4] * 8 + [1, 2, 3], temperature)
    _, best, path_log_probs = problem.crf.posterior(problem.emissions, problem.mask)
    seen = set()
    for row, length in enumerate(problem.lengths):
        paths, scores = every_path(problem.crf, problem.emissions[row, :length].detach())
        found = [set(get_entities([labels[tag] for tag in path])) for path in paths.tolist()]
        for entity in get_entities([labels[tag] for tag in best[row, :length]]):
            _, first, last = entity
            holds = torch.tensor([entity in entities for entities in found])
            log_probs = path_log_probs[row]
            value = log_probs[first, 0] + log_probs[first + 1 : last + 1, 1].sum() + log_probs[last, 2]
            assert_close(value.exp(), scores.softmax(0)[holds].sum(), **EXACT)
            seen.add(last - first)
    assert {0, 1} <= seen  # entities of one token and of several


def test_time_major_results_are_the_transposed_batch_first_ones(problem):
    turned = LinearChainCRF(problem.crf.num_tags, labels=problem.crf.labels).double()
    turned.load_state_dict(problem.crf.state_dict())
    emissions, mask = problem.emissions.transpose(0, 1), problem.mask.T
    assert turned.viterbi(emissions, mask).T.equal(problem.crf.viterbi(problem.emissions, problem.mask))
    assert (
        turned.marginals(emissions, mask).transpose(0, 1).equal(problem.crf.marginals(problem.emissions, problem.mask))
    )
    ours, theirs = turned.nbest(emissions, mask, 3), problem.crf.nbest(problem.emissions, problem.mask, 3)
    assert ours[0].transpose(1, 2).equal(theirs[0])
    assert ours[1].equal(theirs[1])
    for x, y in zip(turned.posterior(emissions, mask), problem.crf.posterior(problem.emissions, problem.mask)):
        assert x.transpose(0, 1).equal(y)


@pytest.mark.parametrize("unknown", [False, True], ids=["known tags", "unknown tags"])
@pytest.mark.parametrize(("num_tags", "labels"), [(3, None), (5, BIO), (5, BIOES)], ids=["free", "BIO", "BIOES"])
def test_gradient_is_exact(num_tags, labels, unknown):
    problem = random_problem(random_crf(num_tags, labels), [3, 1])
    weights = torch.tensor([0.7, -1.3], dtype=torch.float64)
    if unknown:
        problem.tags[0, [0, 2]] = -100

    def weighted(emissions, *parameters):
        state = dict(zip(("start_transitions", "end_transitions", "transitions"), parameters))
        return functional_call(problem.crf, state, (emissions, problem.tags, problem.mask, "none")) * weights

    assert gradcheck(weighted, (problem.emissions, *problem.crf.parameters()))


def test_gradient_can_be_computed_twice(problem):
    value = problem.crf(problem.emissions, problem.tags, problem.mask)
    once, again = (torch.autograd.grad(value, problem.emissions, retain_graph=True)[0] for _ in range(2))
    assert (once.abs() > 1e-12).any() == (problem.crf.num_tags > 1)
    assert once.equal(again)


def test_a_second_derivative_is_an_error():
    """A gradient penalty would otherwise silently miss the curvature of log Z."""
    problem = random_problem(random_crf(3), [4, 2])
    embedding_scale = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def penalise():
        emissions = problem.emissions * embedding_scale
        value = problem.crf(emissions, problem.tags, problem.mask)
        (gradient,) = torch.autograd.grad(value, problem.emissions, create_graph=True)
        gradient.square().sum().backward()

    with pytest.raises(RuntimeError, match="twice|differentiable|second derivative"):
        penalise()


def test_messages_are_freed_with_the_loss():
    """They must not wait for the garbage collector: on a GPU they take most of the memory."""

    def alive():
        return sum(type(x) in (LogLattice, ScaledLattice) for x in gc.get_objects())

    problem = random_problem(random_crf(3), [4, 2])
    gc.disable()
    try:
        before = alive()
        problem.crf(problem.emissions, problem.tags, problem.mask).backward()
        assert alive() == before
    finally:
        gc.enable()


# ---------------------------------------------------------------- constraints


@pytest.mark.parametrize("labels", [BIO, BIOES, LONG_BIOES], ids=["BIO", "BIOES", "BIOES of two types"])
def test_a_transition_is_possible_if_some_sentence_of_the_scheme_has_it(labels):
    start, end, transition = (torch.zeros(shape).bool() for shape in (len(labels), len(labels), [len(labels)] * 2))
    for path in possible_paths(len(labels), 4, labels).tolist():
        start[path[0]] = end[path[-1]] = True
        transition[path[:-1], path[1:]] = True
    steps = LinearChainCRF(len(labels), labels=labels).possible
    for value, expected in zip((steps[-1, :-1], steps[:-1, -1], steps[:-1, :-1]), (start, end, transition)):
        assert value.equal(expected)


@pytest.mark.parametrize(
    "labels",
    [
        POLARITY,
        ("O", "인물", "지명"),
        ("O", "B_인물", "I_인물"),
        ("O", "인물-B", "인물-I"),
        ("O", "I-인물", "I-지명"),
        ("O", "I-인물", "E-인물", "S-인물"),
    ],
    ids=" ".join,
)
def test_labels_of_neither_scheme_constrain_nothing(labels):
    assert allowed_transitions(labels).all()


def test_only_inside_labels_whose_type_has_a_begin_label_are_constrained():
    steps = allowed_transitions(["O", "B-인물", "I-인물", "I-지명"])
    assert steps.T.tolist() == [[True] * 4, [True] * 4, [False, True, True, False], [True] * 4]


@pytest.mark.parametrize(
    ("labels", "sentence", "possible"),
    [
        (BIO, "손/B-인물 흥/I-인물 민/I-인물 은/O 춘/B-지명 천/I-지명 에/O", True),
        (BIO, "서/B-지명 울/I-지명 부/B-지명 산/I-지명", True),
        (BIO, "손/I-인물 흥/I-인물 민/I-인물 은/O", False),
        (BIO, "서/B-지명 울/I-인물 에/O", False),
        (BIO, "서/B-지명 울/O 에/I-지명", False),
        (LONG_BIOES, "손/B-인물 흥/I-인물 민/E-인물 은/O 춘/B-지명 천/E-지명", True),
        (LONG_BIOES, "뷔/S-인물 는/O 서/B-지명 울/E-지명", True),
        (LONG_BIOES, "손/B-인물 흥/I-인물 민/I-인물", False),
        (LONG_BIOES, "서/B-지명 울/O", False),
        (LONG_BIOES, "손/B-인물 흥/B-인물 민/E-인물", False),
        (LONG_BIOES, "뷔/S-인물 는/E-인물", False),
    ],
)
def test_only_sentences_of_the_scheme_have_a_probability(labels, sentence, possible):
    tags = torch.tensor([[labels.index(token.split("/")[1]) for token in sentence.split()]])
    emissions = nn.functional.one_hot(tags, len(labels)) * 30.0  # near-certain of these tags
    crf = LinearChainCRF(len(labels), batch_first=True, labels=labels)
    assert (crf(emissions, tags).item() > -0.1) == possible
    assert (crf.decode(emissions) == tags.tolist()) == possible


@pytest.mark.parametrize("timesteps", [1, 2, 25])
@pytest.mark.parametrize("extent", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("labels", [BIO, LONG_BIOES], ids=["BIO", "BIOES"])
def test_no_impossible_path_is_ever_decoded(labels, extent, timesteps):
    """Use emissions and transitions that strongly prefer impossible paths."""
    crf = random_crf(len(labels), labels, scale=extent, dtype=torch.float32)
    emissions = torch.empty(16, timesteps, len(labels)).uniform_(-extent, extent)
    emissions[:8] = emissions[:8].sign() * extent
    assert all(obeys(labels, path) for path in crf.decode(emissions))
    assert all(obeys(labels, path) for path in crf.posterior(emissions)[1].tolist())
    paths, scores = crf.nbest(emissions, k=6)
    exists = scores > -torch.inf
    assert all(obeys(labels, path) for path in paths[exists].tolist())
    assert (paths[~exists] == -100).all()
    assert (exists.sum(0) == min(6, len(possible_paths(len(labels), min(timesteps, 3), labels)))).all()


@pytest.mark.parametrize("unknown", [0.0, 0.2])
@pytest.mark.parametrize("labels", [BIO, LONG_BIOES], ids=["BIO", "BIOES"])
@pytest.mark.parametrize("timesteps", [2, 40])
def test_loss_and_gradient_are_finite_where_gold_breaks_the_scheme(labels, unknown, timesteps):
    crf = random_crf(len(labels), labels, dtype=torch.float32)
    emissions = torch.randn(32, timesteps, len(labels), requires_grad=True)
    tags = torch.randint(len(labels), (32, timesteps))
    tags[:, :2] = torch.tensor([labels.index("O"), labels.index("I-인물")])
    tags[:, 2:][torch.rand(32, timesteps - 2) < unknown] = -100
    value = crf(emissions, tags, reduction="none")
    assert value.isfinite().all()
    assert (value < -1e20).all()
    assert all(x.isfinite().all() for x in gradients(value.sum(), crf, emissions))


def test_gradient_is_exact_where_no_path_could_continue_into_the_padding():
    problem = random_problem(random_crf(2, PAIRS), [4, 2])
    value = problem.crf(problem.emissions, problem.tags, problem.mask)
    expected = sum(log_likelihood(problem.crf, *sentence) for sentence in sentences(problem))
    assert_close(value, expected, **EXACT)
    for ours, theirs in zip(*(gradients(x, problem.crf, problem.emissions) for x in (value, expected))):
        assert_close(ours, theirs, **EXACT)


def test_loss_and_gradient_are_finite_where_no_path_is_possible():
    crf = random_crf(2, PAIRS)
    emissions = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)
    value = crf(emissions, torch.tensor([[0, 1, 0]]))
    assert value.isfinite()
    assert all(x.isfinite().all() for x in gradients(value, crf, emissions))
    assert (crf.viterbi(emissions) == -100).all()


@pytest.mark.parametrize("labels", [BIO, BIOES], ids=["BIO", "BIOES"])
def test_reset_constraints_restores_buffers_that_were_never_filled(labels):
    """Build the module on the meta device, empty it and load its parameters, as transformers does."""
    intact = random_crf(5, labels)
    with torch.device("meta"):
        crf = LinearChainCRF(5, batch_first=True, labels=labels).double()
    crf.to_empty(device="cpu").load_state_dict(intact.state_dict())
    for name, buffer in crf.named_buffers():
        buffer.copy_(~intact.get_buffer(name))
    crf.reset_constraints()
    for name, buffer in crf.named_buffers():
        assert buffer.equal(intact.get_buffer(name))
    emissions = torch.randn(4, 5, 5, dtype=torch.float64)
    assert crf.decode(emissions) == [best_path(intact, row).tolist() for row in emissions]


# ---------------------------------------------------------------- dtypes, extremes, padding


@pytest.mark.parametrize("extent", [1.0, 1e4])
@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
@pytest.mark.parametrize(
    ("module_dtype", "dtype"),
    [
        (torch.float32, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float32, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
    ],
    ids=str,
)
def test_results_for_any_dtype_are_exact_to_its_precision(module_dtype, dtype, autocast, extent):
    """Compare with pytorch-crf in float64, one sentence at a time."""
    ours = random_crf(7, dtype=module_dtype)
    theirs = CRF(7).double()
    theirs.load_state_dict({name: value.double() for name, value in ours.state_dict().items()})
    lengths = torch.tensor([12, 1, 7])
    mask = torch.arange(12) < lengths[:, None]
    emissions = torch.randn(3, 12, 7)
    emissions = (emissions.sign() * extent if extent > 1 else emissions).to(dtype).requires_grad_()
    tags = torch.randint(7, (3, 12))

    with torch.autocast("cpu") if autocast else nullcontext():
        value = ours(emissions, tags, mask, reduction="none")
        marginals = ours.marginals(emissions, mask)
        decoded = ours.decode(emissions, mask)
    assert value.dtype == marginals.dtype == torch.float32

    exact = emissions.detach().double().requires_grad_()
    rows = [(exact[b, :n, None], tags[b, :n, None]) for b, n in enumerate(lengths)]
    expected_value = torch.cat([theirs(*row, reduction="none") for row in rows])
    assert_close(value, expected_value.float(), rtol=1e-6, atol=1e-6)
    log_z = [theirs._compute_normalizer(row, torch.ones(row.shape[:2]).bool()) for row, _ in rows]
    expected_marginals = torch.autograd.grad(torch.cat(log_z).sum(), exact)[0]
    assert_close(marginals, expected_marginals.float(), rtol=1e-5, atol=1e-7)
    for path, (row, _) in zip(decoded, rows):  # of equally good paths, which occur in half precision, any one
        best = theirs.decode(row)
        assert_close(theirs(row, torch.tensor([path]).T), theirs(row, torch.tensor(best).T), rtol=0, atol=1e-9)

    expected = gradients(expected_value.sum(), theirs, exact)
    for gradient, reference in zip(gradients(value.sum(), ours, emissions), expected):
        tolerance = 4 * torch.finfo(gradient.dtype).eps
        assert_close(gradient.double(), reference, rtol=tolerance, atol=tolerance)


def test_float64_emissions_give_float64_and_integers_float32():
    crf = LinearChainCRF(3, batch_first=True)
    tags = torch.zeros(2, 4, dtype=torch.long)
    for dtype, expected in ((torch.float64, torch.float64), (torch.int64, torch.float32)):
        emissions = torch.ones(2, 4, 3, dtype=dtype)
        log_marginals, _, path_log_probs = crf.posterior(emissions)
        values = crf(emissions, tags), crf.marginals(emissions), crf.nbest(emissions)[1], log_marginals, path_log_probs
        assert {x.dtype for x in values} == {expected}


@pytest.mark.parametrize("padding", [0.0, 1e30, torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("neighbour", [1.0, 1e4], ids=["like", "extreme"])
@pytest.mark.parametrize("labels", [None, BIO], ids=["free", "BIO"])
def test_a_sentence_does_not_depend_on_its_neighbours_or_its_padding(labels, neighbour, padding):
    crf = random_crf(5, labels, dtype=torch.float32)
    alone = torch.randn(1, 6, 5)
    alone_tags = torch.tensor([[0, 1, 2, 2, -100, 0]])
    batch = torch.randn(3, 20, 5) * neighbour
    batch[1] = padding
    batch[1, :6] = alone
    batch.requires_grad_()
    tags = torch.zeros(3, 20, dtype=torch.long)
    tags[1] = torch.tensor([*alone_tags[0], *[10**6] * 14])  # tags of the padding are not read
    mask = torch.arange(20) < torch.tensor([20, 6, 13])[:, None]

    for ours, expected in zip(crf.posterior(batch, mask), crf.posterior(alone)):
        assert_close(ours[1, :6], expected[0], rtol=1e-5, atol=1e-6)
        assert not (ours[1, 6:] % 100).any()  # 0 or -100
    assert_close(crf.marginals(batch, mask)[1, :6], crf.marginals(alone)[0], rtol=1e-5, atol=1e-6)
    paths, scores = crf.nbest(batch, mask, k=4)
    expected_paths, expected_scores = crf.nbest(alone, k=4)
    assert paths[:, 1, :6].equal(expected_paths[:, 0])
    assert_close(scores[:, 1], expected_scores[:, 0])
    assert crf.decode(batch, mask)[1] == crf.decode(alone)[0]

    alone.requires_grad_()
    expected_value = crf(alone, alone_tags, reduction="none")[0]
    value = crf(batch, tags, mask, reduction="none")[1]
    assert_close(value, expected_value)
    gradient, *ours = gradients(value, crf, batch)
    expected_gradient, *expected = gradients(expected_value, crf, alone)
    assert not torch.cat([gradient[[0, 2]].flatten(), gradient[1, 6:].flatten()]).any()
    assert_close(gradient[1, :6], expected_gradient[0], rtol=1e-5, atol=1e-6)
    assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda crf: pickle.loads(pickle.dumps(crf))], ids=["copy", "pickle"])
def test_a_copy_keeps_labels_constraints_and_parameters(clone):
    crf = random_crf(5, BIOES)
    emissions = torch.randn(3, 5, 5, dtype=torch.float64, requires_grad=True)
    crf(emissions, torch.zeros(3, 5, dtype=torch.long)).backward()
    twin = clone(crf)
    assert twin.labels == BIOES
    expected = [best_path(crf, row).tolist() for row in emissions]
    with torch.no_grad():
        crf.transitions.zero_()  # must not change the copy
    assert twin.decode(emissions) == expected


# ---------------------------------------------------------------- invalid input


@pytest.mark.parametrize("method", ["forward", "decode", "viterbi", "nbest", "marginals", "posterior"])
@pytest.mark.parametrize(
    ("shape", "mask", "message"),
    [
        ((2, 4, 3), [[1, 0, 1, 1], [1, 1, 1, 1]], "mask must be a prefix of each sequence: it has a hole"),
        ((2, 4, 3), [[0, 1, 1, 1], [1, 1, 1, 1]], "mask of the first timestep must all be on"),
        ((2, 4, 3), [[1, 1, 1], [1, 1, 1]], r"must match, got \(2, 4\) and \(2, 3\)"),
        ((2, 4, 5), [[1, 1, 1, 1], [1, 1, 1, 1]], "expected last dimension of emissions is 3, got 5"),
        ((2, 4), [[1, 1, 1, 1], [1, 1, 1, 1]], "emissions must have dimension of 3, got 2"),
    ],
    ids=["hole", "first timestep", "shape", "tags", "dimensions"],
)
def test_every_method_rejects_invalid_shapes_and_masks(method, shape, mask, message):
    emissions, mask = torch.randn(shape), torch.tensor(mask).bool()
    tags = [torch.zeros(emissions.shape[:2], dtype=torch.long)] if method == "forward" else []
    with pytest.raises(ValueError, match=message):
        getattr(LinearChainCRF(3, batch_first=True), method)(emissions, *tags, mask)


def test_a_hole_in_the_mask_is_an_error_in_the_time_major_layout_too():
    crf = LinearChainCRF(3)
    mask = torch.tensor([[1, 0, 1], [1, 1, 1]]).T
    with pytest.raises(ValueError, match="hole"):
        crf.decode(torch.randn(3, 2, 3), mask)
    assert len(crf.decode(torch.randn(2, 3, 3), torch.tensor([[1, 1, 1], [1, 0, 1]]))) == 3  # sequence 2 is shorter


@pytest.mark.parametrize("tag", [-1, -99, -101, 3, 10**6])
def test_tags_out_of_range_are_an_error_within_the_sentence_only(tag):
    crf = LinearChainCRF(3, batch_first=True)
    emissions, mask = torch.randn(2, 4, 3), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    tags = torch.zeros(2, 4, dtype=torch.long)
    expected = crf(emissions, tags, mask)
    tags[0, 3] = tag
    assert crf(emissions, tags, mask).equal(expected)
    tags[0, 2] = tag
    with pytest.raises(ValueError, match=r"tags must be in \[0, 3\) or -100 for unknown"):
        crf(emissions, tags, mask)


@pytest.mark.parametrize("k", [0, -1])
def test_fewer_than_one_path_is_an_error(k):
    with pytest.raises(ValueError, match=f"the number of paths must be positive, got {k}"):
        LinearChainCRF(3).nbest(torch.randn(4, 2, 3), k=k)


@pytest.mark.parametrize("labels", [[], POLARITY, BIOES], ids=len)
def test_the_number_of_labels_must_be_that_of_tags(labels):
    with pytest.raises(ValueError, match=f"{len(labels)} labels for 4 tags"):
        LinearChainCRF(4, labels=labels)
