"""Export of taggers to ONNX graphs of any batch size and length, whose output is the label ids of the Viterbi paths.

The exporter of torch translates the model except for the loops over timesteps: the BiLSTM layers become ONNX's own
LSTM, the Viterbi recursion two Scans, and the search in the table of nouns a bisection, by translations defined here.
"""

import copy
import os
from pathlib import Path

import torch
from onnxscript import DOUBLE, INT64, graph, script
from onnxscript import opset18 as op
from torch import Tensor, library, nn

from ..alignment import IGNORED
from ..modeling_bilstm_crf import BiLSTMCRFForTokenClassification
from ..morphemes import NUM_NOUNS
from ..processing_bilstm_crf import TEXT_INPUTS
from ..sequences import BiLSTMLayer, Sequences

INT32 = 6
"""ONNX's number of the type of the `sequence_lens` of an LSTM."""


def export_onnx(model: BiLSTMCRFForTokenClassification, path: str | os.PathLike) -> None:
    """Write `model` as an ONNX graph of opset 18.

    The inputs are `input_ids`, `attention_mask` and the inputs of `processing_bilstm_crf.TEXT_INPUTS` that the model
    reads, (B, S) int64 each. The output is `predictions`, (B, S) int64: the Viterbi path as in the model's output,
    computed in float64 from the float32 emissions; -100 outside of the sequences.
    """
    model.update_crf()
    text_inputs = [name for name, (field, *_) in TEXT_INPUTS.items() if getattr(model.config, field)]
    names = ["input_ids", "attention_mask", *text_inputs]
    input_ids = torch.full((2, 8), model.config.vocab_size - 1)
    shape = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    program = torch.onnx.export(
        _Tagger(model, text_inputs).eval(),
        tuple(input_ids if name == "input_ids" else torch.ones_like(input_ids) for name in names),
        dynamo=True,
        verbose=False,
        opset_version=18,
        input_names=names,
        output_names=["predictions"],
        dynamic_shapes=(shape, shape, *([(shape,) * len(text_inputs)] if text_inputs else [])),
        custom_translation_table={
            torch.ops.bilstm_crf.bilstm.default: _onnx_bilstm,
            torch.ops.bilstm_crf.viterbi.default: _onnx_viterbi,
            torch.ops.aten.searchsorted.Tensor: _onnx_searchsorted,
        },
    )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces of the exporter, with paths of this machine
    program.save(Path(path))


class _Tagger(nn.Module):
    """The forward pass of a tagger, down to the Viterbi path."""

    def __init__(self, model: BiLSTMCRFForTokenClassification, text_inputs: list[str]) -> None:
        super().__init__()
        self.text_inputs = text_inputs
        self.model = copy.deepcopy(model)
        ahead, behind = model.bilstm.features.windows
        layers = [_Layer(layer, i == 0 and ahead != behind) for i, layer in enumerate(model.bilstm.layers)]
        self.model.bilstm.layers = nn.ModuleList(layers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *text_inputs: Tensor) -> Tensor:
        """Return the Viterbi paths (B, S)."""
        inputs = dict(zip(self.text_inputs, text_inputs, strict=True))
        emissions, sequences = self.model.emissions(input_ids, attention_mask, **inputs)
        emissions = emissions.double()
        steps = self.model.crf.potentials()
        start, end, transitions = steps[-1, :-1], steps[:-1, -1], steps[:-1, :-1]
        path = torch.ops.bilstm_crf.viterbi(emissions, sequences.lengths, start, end, transitions)
        return sequences.unpack(path, fill=IGNORED)


class _Layer(nn.Module):
    """A BiLSTM layer whose weights have ONNX's layout: (2, 4 * H, ...), with the gates in the order i, o, f, g."""

    def __init__(self, layer: BiLSTMLayer, separate_inputs: bool) -> None:
        super().__init__()
        inputs, hidden, input_bias, hidden_bias = (
            [_reordered(lstm.get_parameter(f"{name}_l0")) for lstm in layer.children()]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        self.separate_inputs = separate_inputs  # the inputs of the two directions differ
        if separate_inputs:  # ONNX has one input for both directions: each direction weighs that of the other with 0
            inputs = torch.block_diag(*inputs).chunk(2)
        self.register_buffer("inputs", torch.stack(list(inputs)))
        self.register_buffer("hidden", torch.stack(hidden))
        self.register_buffer("bias", torch.cat([torch.stack(input_bias), torch.stack(hidden_bias)], 1))

    def forward(self, inputs: tuple[Tensor, Tensor], sequences: Sequences) -> Tensor:
        """Return the hidden states (T, B, 2 * H)."""
        x = torch.cat(inputs, -1) if self.separate_inputs else inputs[0]
        return torch.ops.bilstm_crf.bilstm(x, sequences.lengths, self.inputs, self.hidden, self.bias)


def _reordered(weight: Tensor) -> Tensor:
    """Return the gates of a weight in ONNX's order."""
    i, f, g, o = weight.detach().chunk(4)
    return torch.cat([i, o, f, g])


# Operators without a computation: each represents a loop in the exported program until it is translated.
library.define("bilstm_crf::bilstm", "(Tensor x, Tensor lengths, Tensor inputs, Tensor hidden, Tensor bias) -> Tensor")
library.define(
    "bilstm_crf::viterbi", "(Tensor emissions, Tensor lengths, Tensor start, Tensor end, Tensor transitions) -> Tensor"
)


@library.register_fake("bilstm_crf::bilstm")
def _(x, lengths, inputs, hidden, bias):
    return x.new_empty(*x.shape[:2], 2 * hidden.shape[2])


@library.register_fake("bilstm_crf::viterbi")
def _(emissions, lengths, start, end, transitions):
    return emissions.new_empty(emissions.shape[:2], dtype=torch.long)


def _onnx_bilstm(x, lengths, inputs, hidden, bias):
    lengths = op.Cast(lengths, to=INT32)
    options = {"direction": "bidirectional", "hidden_size": hidden.shape[2]}
    both, _, _ = op.LSTM(x, inputs, hidden, bias, lengths, **options)  # (T, 2, B, H)
    return op.Reshape(op.Transpose(both, perm=[0, 2, 1, 3]), op.Constant(value_ints=[0, 0, -1]))


def _onnx_searchsorted(table, values, right):
    """Compute `torch.searchsorted` in a table of nouns by bisection; values come after the first, empty row."""
    at = op.Mul(op.Cast(values, to=INT64.dtype), op.Constant(value_int=0))
    for power in reversed(range(NUM_NOUNS.bit_length() - 1)):
        ahead = op.Add(at, op.Constant(value_int=2**power))
        at = op.Where(op.LessOrEqual(op.Gather(table, ahead), values), ahead, at)
    return op.Add(at, op.Constant(value_int=1))


@script()
def _onnx_viterbi(emissions: DOUBLE, lengths: INT64, start: DOUBLE, end: DOUBLE, transitions: DOUBLE) -> INT64:
    """Compute `lattice.best_path`, with masks instead of the boundary state."""

    @graph()
    def from_the_end(following, scores, goes_on):
        first, last = op.Constant(value_ints=[1]), op.Constant(value_ints=[2])
        best = op.ReduceMax(op.Add(op.Unsqueeze(following, first), transitions), last, keepdims=0)
        entered = op.Add(scores, op.Where(goes_on, best, end))
        kept = op.Identity(entered)
        return entered, kept

    @graph()
    def from_the_start(row, scores):
        tag = op.ArgMax(op.Add(row, scores), axis=1, keepdims=0)
        entered = op.Gather(transitions, tag)
        kept = op.Identity(tag)
        return entered, kept

    one = op.Constant(value_int=1)
    timesteps = op.Squeeze(op.Shape(emissions, start=0, end=1))
    behind = op.Unsqueeze(op.Range(one, op.Add(timesteps, one), one), op.Constant(value_ints=[1]))
    goes_on = op.Unsqueeze(op.Less(behind, lengths), op.Constant(value_ints=[2]))  # (T, B, 1)
    initial = op.Expand(start, op.Shape(emissions, start=1))
    _, ahead = op.Scan(
        initial,
        emissions,
        goes_on,
        body=from_the_end,
        num_scan_inputs=2,
        scan_input_directions=[1, 1],
        scan_output_directions=[1],
    )
    _, path = op.Scan(initial, ahead, body=from_the_start, num_scan_inputs=1)
    return path
