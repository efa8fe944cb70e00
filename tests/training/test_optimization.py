import copy

import pytest
import torch
from torch import nn

from bilstm_crf_hf.training.optimization import RowAdamW, clip_gradients, use_sparse_gradients


def lookups(model: nn.Sequential, rows: torch.Tensor) -> None:
    model.zero_grad()
    (model(rows).square() * torch.linspace(0.1, 1, rows.numel())[:, None]).sum().backward()


def new_models(seed: int = 0) -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(seed)
    dense = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 3))
    sparse = copy.deepcopy(dense)
    use_sparse_gradients(sparse, minimum=1)
    return dense, sparse


def assert_equal_weights(ours: nn.Module, theirs: nn.Module) -> None:
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_it_is_adamw_where_every_row_is_looked_up():
    dense, sparse = new_models()
    options = {"lr": 0.1, "weight_decay": 0.2}
    theirs, ours = torch.optim.AdamW(dense.parameters(), **options), RowAdamW(sparse.parameters(), **options)
    for rows in ([0, 1, 2, 3, 4, 5, 5], [5, 4, 3, 2, 1, 0], [0, 0, 0, 1, 2, 3, 4, 5]):
        for model, optimizer in ((dense, theirs), (sparse, ours)):
            lookups(model, torch.tensor(rows))
            optimizer.step()
    assert sparse[0].weight.grad.is_sparse
    assert_equal_weights(sparse, dense)


def test_embeddings_move_as_under_torchs_sparse_adam():
    ours, theirs = (model[0] for model in (new_models()[1], new_models()[1]))
    optimizers = (
        RowAdamW(ours.parameters(), lr=0.1, weight_decay=0.0),
        torch.optim.SparseAdam(theirs.parameters(), lr=0.1),
    )
    for rows in ([1, 1, 3], [3, 4], [1, 5, 5]):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            lookups(nn.Sequential(model), torch.tensor(rows))
            optimizer.step()
    assert_equal_weights(ours, theirs)


def test_rows_that_are_not_looked_up_stay_as_they_are():
    _, sparse = new_models()
    before = sparse[0].weight.detach().clone()
    optimizer = RowAdamW(sparse.parameters(), lr=0.1, weight_decay=0.5)
    lookups(sparse, torch.tensor([1, 4]))
    optimizer.step()
    changed = (sparse[0].weight != before).any(1)
    assert changed.tolist() == [False, True, False, False, True, False]


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_dense_gradients_of_a_table_update_the_rows_that_sparse_ones_do(weight_decay):
    dense, sparse = new_models()
    ours = RowAdamW(
        [{"params": dense[0].parameters(), "rows": True}, {"params": dense[1].parameters()}],
        lr=0.1,
        weight_decay=weight_decay,
    )
    theirs = RowAdamW(sparse.parameters(), lr=0.1, weight_decay=weight_decay)
    for rows in ([1, 1, 3], [3, 4], [1, 5, 5]):
        for model, optimizer in ((dense, ours), (sparse, theirs)):
            lookups(model, torch.tensor(rows))
            optimizer.step()
    assert not dense[0].weight.grad.is_sparse
    assert_equal_weights(dense, sparse)


def test_state_goes_on_where_it_was_saved():
    _, sparse = new_models()
    optimizer = RowAdamW(sparse.parameters(), lr=0.1)
    lookups(sparse, torch.tensor([0, 2]))
    optimizer.step()
    again = copy.deepcopy(sparse)
    resumed = RowAdamW(again.parameters(), lr=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, each in ((sparse, optimizer), (again, resumed)):
        lookups(model, torch.tensor([2, 3]))
        each.step()
    assert all(torch.equal(a, b) for a, b in zip(sparse.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("max_norm", [0.01, 1e6, float("inf")])
def test_clipping_equals_torchs_on_dense_gradients(max_norm):
    dense, sparse = new_models()
    for model in (dense, sparse):
        lookups(model, torch.tensor([0, 2, 2, 2, 5]))
    expected = nn.utils.clip_grad_norm_(dense.parameters(), max_norm)
    torch.testing.assert_close(clip_gradients(sparse.parameters(), max_norm), expected)
    for a, b in zip(sparse.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(a.grad.to_dense(), b.grad, atol=1e-8, rtol=1e-5)
