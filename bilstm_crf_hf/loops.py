"""Loops over timesteps, which stay loops in exported programs. This file is copied into exported model repositories.

Tracing unrolls the loops of Python and of `nn.LSTM`: a program of `torch.export` would be right for one number of
timesteps only, and `torch.compile` would take minutes for each number. So the former gets the loops of [`accumulate`],
and the latter is disabled for functions that contain loops.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def accumulate(step: Callable[[Tensor, Tensor], Tensor], first: Tensor, inputs: Tensor) -> Tensor:
    """Return `first` and the results of `step` for the last result and each of `inputs`, stacked, (1 + T, ...).

    Results have the shape and dtype of `first`. `torch.export` makes the loop one operator of the program.
    """
    if torch.compiler.is_compiling():
        from torch._higher_order_ops.scan import scan  # which has no public name yet

        def copying_step(result: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            result = step(result, x)
            return result, result.clone()  # an operator must not return a tensor twice

        return torch.cat([first[None], scan(copying_step, first, inputs)[1]])
    results = [first]
    for x in inputs.unbind(0):
        results.append(step(results[-1], x))
    return torch.stack(results)
