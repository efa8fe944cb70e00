"""Training steps as CUDA graphs.

The kernels of a BiLSTM-CRF take a few microseconds each, and launching them one by one takes ten times longer than they
run. A CUDA graph launches all kernels of a step at once (https://docs.pytorch.org/docs/stable/notes/cuda.html).
"""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn

PAD_TO = 8
"""Multiple of tokens that batches are padded to, so that their shapes are few: each shape needs a graph of its own."""


class GraphedSteps:
    """Loss and gradient of a model by graphs, one for each shape of a batch.

    The first batch of a shape runs without a graph, which loads its kernels; the second one is captured. Gradients are
    accumulated in tensors that all graphs share.

    Args:
        model: model on a CUDA device whose parameters stay where they are.
        step: function that computes the loss of a batch, calls `backward`, and returns the detached loss. It must not
            wait for the device.
    """

    def __init__(self, model: nn.Module, step: Callable[[dict[str, Tensor]], Tensor]) -> None:
        self.model, self.step = model, step
        self.pool = torch.cuda.graph_pool_handle()
        self.graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, dict[str, Tensor], Tensor] | None] = {}
        self.gradients: dict[nn.Parameter, Tensor] = {}

    def __call__(self, batch: dict[str, Tensor], *constants: Hashable) -> Tensor:
        """Return the loss of a batch; its gradient is added to that of the parameters.

        Args:
            batch: tensors on the device.
            constants: values besides the batch that `step` depends on.
        """
        key = (constants, *((name, tensor.shape, tensor.dtype) for name, tensor in batch.items()))
        if key not in self.graphs:
            self.graphs[key] = None
            loss = self.step(dict(batch))
            # Parameters that no loss depends on have no gradient, and the optimizer skips them.
            for parameter in self.model.parameters():
                if parameter.grad is not None and parameter not in self.gradients:
                    self.gradients[parameter] = torch.empty_like(parameter)
            return loss
        self._share_gradients()
        self.graphs[key] = graph, inputs, loss = self.graphs[key] or self._capture(batch)
        torch._foreach_copy_(list(inputs.values()), [batch[name] for name in inputs])
        graph.replay()
        return loss.clone()  # the next graph writes to the same memory

    def _share_gradients(self) -> None:
        """Let the gradients of the parameters be the shared tensors: zero, or what has been accumulated so far."""
        new = [shared for parameter, shared in self.gradients.items() if parameter.grad is None]
        if new:
            torch._foreach_zero_(new)
        for parameter, shared in self.gradients.items():
            if parameter.grad is not None and parameter.grad is not shared:
                shared.copy_(parameter.grad)
            parameter.grad = shared

    def _capture(self, batch: dict[str, Tensor]) -> tuple[torch.cuda.CUDAGraph, dict[str, Tensor], Tensor]:
        """Return the graph of a step, the tensors that it reads the batch from, and the loss that it writes."""
        inputs = {name: tensor.clone() for name, tensor in batch.items()}
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            loss = self.step(dict(inputs))
        return graph, inputs, loss
