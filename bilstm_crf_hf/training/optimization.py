"""AdamW and gradient clipping that compute only the rows of an embedding table that a batch has looked up.

A batch of 32 sentences looks up about 3,000 of the 130,000 rows for hashed n-grams. With dense gradients, filling,
clipping and updating the whole table takes longer than the LSTM. `torch.nn.Embedding(sparse=True)` has gradients of
these rows only. `torch.optim.SparseAdam` accepts them, but has no weight decay and accepts no dense gradients.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class RowAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` that updates only the rows of embedding tables that a batch has looked up.

    Other rows keep their values and moments in that step, and are not decayed, as in `torch.optim.SparseAdam`. Bias
    correction counts all steps. The state has the layout of AdamW.

    The tables are the parameters with sparse gradients, and those in groups with `"rows": True`, whose gradients may be
    dense, as on accelerators: there the update of a whole table costs nothing, but the host would have to wait for the
    indices of its rows. A row whose dense gradient is zero counts as one that was not looked up.
    """

    @torch.no_grad()
    def step(self, closure=None):
        """Update the parameters, as `torch.optim.Optimizer.step` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        taken: list[tuple[nn.Parameter, Tensor]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                grad = parameter.grad
                if grad is not None and (grad.is_sparse or group.get("rows")):
                    (self._step_rows if grad.is_sparse else self._step_masked)(parameter, grad, group)
                    taken.append((parameter, grad))
                    parameter.grad = None
        super().step()
        for parameter, grad in taken:
            parameter.grad = grad
        return loss

    def _step_rows(self, parameter: nn.Parameter, grad: Tensor, group: dict) -> None:
        """Update the rows of a sparse gradient."""
        state, rate, correction = self._next_state(parameter, group)
        grad = grad.coalesce()
        rows, values = grad.indices()[0], grad.values()
        beta1, beta2 = group["betas"]
        first = state["exp_avg"].index_select(0, rows).lerp_(values, 1 - beta1)
        second = state["exp_avg_sq"].index_select(0, rows).mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["exp_avg"].index_copy_(0, rows, first)
        state["exp_avg_sq"].index_copy_(0, rows, second)
        deviation = second.sqrt_().div_(correction).add_(group["eps"])
        decayed = parameter.index_select(0, rows).mul_(1 - group["lr"] * group["weight_decay"])
        parameter.index_copy_(0, rows, decayed.addcdiv_(first, deviation, value=-rate))

    def _step_masked(self, parameter: nn.Parameter, grad: Tensor, group: dict) -> None:
        """Update the rows of a dense gradient that are not zero."""
        state, rate, correction = self._next_state(parameter, group)
        beta1, beta2 = group["betas"]
        looked_up = grad.any(1, keepdim=True).to(grad.dtype)  # (V, 1), 1 or 0
        first = state["exp_avg"].lerp_(grad, (1 - beta1) * looked_up)
        second = state["exp_avg_sq"].lerp_(grad.square(), (1 - beta2) * looked_up)
        deviation = second.sqrt().div_(correction).add_(group["eps"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"] * looked_up)
        parameter.addcdiv_(first * looked_up, deviation, value=-rate)

    def _next_state(self, parameter: nn.Parameter, group: dict) -> tuple[dict, float, float]:
        """Count a step; return the state, the rate, and the divisor of the deviation, both corrected for the bias."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        steps, (beta1, beta2) = state["step"].item(), group["betas"]
        return state, group["lr"] / (1 - beta1**steps), (1 - beta2**steps) ** 0.5


def use_sparse_gradients(model: nn.Module, minimum: int = 2**18, sparse: bool = True) -> set[str]:
    """Set `sparse` of all embeddings with at least `minimum` weights, and return the names of their weights."""
    large = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and module.weight.numel() >= minimum
    }
    for module in large.values():
        module.sparse = sparse
    return set(large)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Clip gradients like `torch.nn.utils.clip_grad_norm_`, sparse ones included, and return their norm before."""
    values = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
            values.append(parameter.grad._values() if parameter.grad.is_sparse else parameter.grad)
    norm = nn.utils.get_total_norm(values)
    torch._foreach_mul_(values, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
