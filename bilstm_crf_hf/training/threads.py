"""Threads of a training on CPUs.

PyTorch's threads share the work of each operation, and spin until all of them are done. An LSTM has an operation for
each timestep, which takes 0.1 ms: a thread whose core another process has at that time stops all others. The two
directions of a BiLSTM layer, most of the time of a step, meet only at its end. As threads of their own they sleep while
they wait, are faster than threads that share operations, and have the results of one thread.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..modeling_bilstm_crf import BiLSTMCRFModel
from ..sequences import BiLSTMLayer
from ..threads import usable_cpus


@contextmanager
def training_threads(model: nn.Module) -> Iterator[None]:
    """Let PyTorch use at most the usable CPUs, and run the directions of a BiLSTM in two threads if there are two.

    Settings of the user keep their meaning. One thread remains one, whether `OMP_NUM_THREADS` or PyTorch was told so;
    with a larger number in `OMP_NUM_THREADS` than there are directions, threads share operations.
    """
    before = torch.get_num_threads()
    threads = min(before, usable_cpus())
    layers: list[BiLSTMLayer] = []
    if threads == 2 or (threads > 2 and "OMP_NUM_THREADS" not in os.environ):
        body = getattr(model, "base_model", None)  # an encoder needs threads that share its operations
        if isinstance(body, BiLSTMCRFModel):
            layers = [layer for layer in body.layers if isinstance(layer, BiLSTMLayer)]
    torch.set_num_threads(1 if layers else threads)
    try:
        # The other direction has the calling thread. A new thread does not take over the setting of the process.
        with ThreadPoolExecutor(1, "direction", torch.set_num_threads, (1,)) as pool:
            for layer in layers:
                layer.run_directions = partial(_run_directions, layer, pool)  # type: ignore[method-assign]
            yield
    finally:
        for layer in layers:
            del layer.run_directions
        torch.set_num_threads(before)


def _run_directions(
    layer: BiLSTMLayer, pool: ThreadPoolExecutor, ahead: Tensor, behind: Tensor
) -> tuple[Tensor, Tensor]:
    return _Directions.apply(layer, pool, torch.is_grad_enabled(), ahead, behind, *layer.parameters())


def _in_threads(pool: ThreadPoolExecutor, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return the results of two calls, the second of which runs in the thread of `pool`."""
    second = pool.submit(calls[1])
    return [calls[0](), second.result()]


class _Directions(torch.autograd.Function):
    """The outputs of the two directions of a layer. Each has a graph of its own, for autograd has one thread."""

    @staticmethod
    def forward(ctx, layer: BiLSTMLayer, pool: ThreadPoolExecutor, with_gradient: bool, *tensors: Tensor):
        """Run both directions for their inputs, the first two tensors; the others are the parameters of the layer."""
        dtype, enabled = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

        def run(lstm: nn.LSTM, x: Tensor) -> tuple[Tensor, list[Tensor]]:
            x = x.detach().requires_grad_(x.requires_grad and with_gradient)
            # Both are settings of a thread. The cache of autocast is one for all threads, each of which clears it.
            with torch.set_grad_enabled(with_gradient), torch.autocast("cpu", dtype, enabled, cache_enabled=False):
                return layer.run_lstm(lstm, x), [x, *lstm.parameters()]

        lstms = layer.forward_lstm, layer.backward_lstm
        ctx.pool, ctx.graphs = pool, _in_threads(pool, [partial(run, *each) for each in zip(lstms, tensors)])
        return tuple(output.detach() for output, _ in ctx.graphs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the inputs and the parameters."""
        calls = [partial(_gradients, output, inputs, grad) for (output, inputs), grad in zip(ctx.graphs, grads)]
        ahead, behind = _in_threads(ctx.pool, calls)
        return None, None, None, ahead[0], behind[0], *ahead[1:], *behind[1:]


def _gradients(output: Tensor, inputs: list[Tensor], grad: Tensor) -> list[Tensor | None]:
    """Return the gradients of `inputs`, None for those that need none."""
    wanted = [x for x in inputs if x.requires_grad]
    found = iter(torch.autograd.grad(output, wanted, grad) if wanted else ())
    return [next(found) if x.requires_grad else None for x in inputs]
