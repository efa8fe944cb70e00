"""The arithmetic limit in `bilstm-crf benchmark`: matrix products on a core, and those that a model needs."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.utils import mkldnn

from ..utils.timing import medians

SIZE = 1024
"""Width of the matrices; wider ones are not faster."""


class Peak(NamedTuple):
    """The fastest matrix products."""

    flops: float
    """Operations a second: a multiplication and an addition are two."""
    way: str
    """The function that computes them."""


class Product(NamedTuple):
    """A way to multiply matrices."""

    numbers: str
    """The type of the numbers."""
    way: str
    """The function that multiplies them."""
    run: Callable[[], object]
    """A call of this function."""
    flop: int
    """Operations of a call."""


def peaks(rounds: int, size: int = SIZE) -> dict[str, Peak]:
    """Return the peak for each type of numbers, since the fastest function depends on the processor."""
    found: dict[str, Peak] = {}
    with torch.inference_mode():
        products = {f"{each.numbers}, {each.way}": each for each in matrix_products(size)}
        seconds = medians({name: each.run for name, each in products.items()}, rounds)
    for name, each in products.items():
        peak = Peak(each.flop / seconds[name], each.way)
        found[each.numbers] = max(peak, found.get(each.numbers, peak))
    return found


def matrix_products(size: int) -> Iterator[Product]:
    """Yield ways to multiply matrices whose width is `size`."""
    square = 2 * size**3
    if torch.backends.mkldnn.is_available():  # torch.matmul in float32 is MKL's, which is slow on AMD
        linear, packed = mkldnn.to_mkldnn(nn.Linear(size, size)), torch.randn(size, size).to_mkldnn()
        yield Product("float32", "oneDNN's Linear", lambda: linear(packed), square)
    for dtype in (torch.float32, torch.bfloat16):
        numbers, x = str(dtype).removeprefix("torch."), torch.randn(size, size).to(dtype)
        yield Product(numbers, "torch.matmul", partial(torch.matmul, x, x), square)
        lstm, sequences = nn.LSTM(size, size // 4).to(dtype), x.unflatten(0, (8, -1))
        yield Product(numbers, "nn.LSTM", partial(lstm, sequences), flop_of_a_token(lstm) * size)
    integers = torch.randint(-9, 9, (size, size), dtype=torch.int8)
    yield Product("int8", "torch._int_mm", partial(torch._int_mm, integers, integers), square)


def flop_of_a_token(model: nn.Module) -> int:
    """Return the operations of the matrix products for a token: two for each weight of LSTMs and linear layers."""
    layers = (module for module in model.modules() if isinstance(module, (nn.LSTM, nn.Linear)))
    return 2 * sum(weight.numel() for layer in layers for weight in layer.parameters() if weight.dim() == 2)
