"""Threads of a training on CPUs.

PyTorch's threads share the work of each operation, and spin until all of them are done. An LSTM has an operation for
each timestep, which takes 0.1 ms: a thread whose core another process has at that time stops all others. The two
directions of a BiLSTM layer, most of the time of a step, meet only at its end. As threads of their own they sleep while
they wait, are faster than threads that share operations, and have the results of one thread.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..modeling_bilstm_crf import BiLSTMCRFModel
from ..sequences import DIRECTIONS, BiLSTMLayer
from ..threads import usable_cpus


@contextmanager
def training_threads(model: nn.Module) -> Iterator[None]:
    """Let PyTorch use at most the usable CPUs, and run the directions of a BiLSTM in two threads if there are two.

    Settings of the user keep their meaning. One thread remains one, whether `OMP_NUM_THREADS` or PyTorch was told so;
    with a larger number in `OMP_NUM_THREADS` than there are directions, threads share operations.

    If `model` is a BiLSTM, all models that run in the context use its threads, also copies and those of a `model_init`.
    Within the context, their loss can be differentiated, again after `retain_graph=True`; its gradient cannot.
    """
    before = torch.get_num_threads()
    threads = min(before, usable_cpus())
    is_bilstm = isinstance(getattr(model, "base_model", None), BiLSTMCRFModel)
    # An encoder needs threads that share its operations.
    is_split = is_bilstm and (threads == 2 or (threads > 2 and "OMP_NUM_THREADS" not in os.environ))
    torch.set_num_threads(1 if is_split else threads)
    try:
        with _directions_in_threads() if is_split else nullcontext():
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _directions_in_threads() -> Iterator[None]:
    """Let the directions of layers run in two threads: the calling one, and one of a pool."""
    # A new thread does not take over the setting of the process.
    with ThreadPoolExecutor(1, "direction", torch.set_num_threads, (1,)) as pool:
        token = DIRECTIONS.set(partial(_run_directions, pool))
        try:
            yield
        finally:
            DIRECTIONS.reset(token)


def _run_directions(
    pool: ThreadPoolExecutor, layer: BiLSTMLayer, ahead: Tensor, behind: Tensor
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

        def run(lstm: nn.LSTM, x: Tensor) -> tuple[Tensor, Tensor]:
            x = x.detach().requires_grad_(x.requires_grad and with_gradient)
            # Both are settings of a thread. The cache of autocast is one for all threads, each of which clears it.
            with torch.set_grad_enabled(with_gradient), torch.autocast("cpu", dtype, enabled, cache_enabled=False):
                return x, layer.run_lstm(lstm, x)

        ctx.lstms, ctx.pool = (layer.forward_lstm, layer.backward_lstm), pool
        inputs, outputs = zip(*_in_threads(pool, [partial(run, *each) for each in zip(ctx.lstms, tensors)]))
        ctx.save_for_backward(*inputs, *outputs)  # with their graphs
        return tuple(output.detach() for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the inputs and the parameters."""
        saved = ctx.saved_tensors
        calls = [partial(_gradients, *each) for each in zip(ctx.lstms, saved[:2], saved[2:], grads)]
        ahead, behind = _in_threads(ctx.pool, calls)
        return None, None, None, ahead[0], behind[0], *ahead[1:], *behind[1:]


def _gradients(lstm: nn.LSTM, x: Tensor, output: Tensor, grad: Tensor) -> list[Tensor | None]:
    """Return the gradients of the input and the parameters, None for those that need none."""
    inputs = [x, *lstm.parameters()]
    wanted = [each for each in inputs if each.requires_grad]
    # The caller's graph frees this one with its other saved tensors, unless it is retained.
    found = iter(torch.autograd.grad(output, wanted, grad, retain_graph=True) if wanted else ())
    return [next(found) if each.requires_grad else None for each in inputs]
