"""Export of taggers and text classifiers to ONNX graphs of any batch size and length.

The exporter of torch translates the models except for the loops over timesteps: the BiLSTM layers become ONNX's own
LSTM, the Viterbi recursion two Scans, and the search in the table of nouns a bisection, by translations defined here.
"""

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxscript import BOOL, DOUBLE, FLOAT, INT64, graph, ir, script
from onnxscript import opset18 as op
from torch import Tensor, library, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..alignment import IGNORED
from ..modeling_bilstm_crf import (
    BiLSTMCRFForTokenClassification,
    BiLSTMCRFPreTrainedModel,
    BiLSTMForSequenceClassification,
)
from ..modeling_encoder import EncoderCRFForTokenClassification, EncoderForSequenceClassification
from ..processing_bilstm_crf import TEXT_INPUTS, default_stride, labels_words, usable_positions
from ..sequences import BiLSTMLayer, Sequences

INT32 = 6
"""ONNX's number of the type of the `sequence_lens` of an LSTM."""

TAGGERS = (BiLSTMCRFForTokenClassification, EncoderCRFForTokenClassification)
CLASSIFIERS = (BiLSTMForSequenceClassification, EncoderForSequenceClassification)
"""The models that can be exported."""

DECODES = "decodes"
"""Name of the input of taggers that says whether `predictions` are computed."""


def export_onnx(model: BiLSTMCRFPreTrainedModel, path: str | os.PathLike, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write `model` as an ONNX graph of opset 18.

    The inputs are `input_ids`, `attention_mask` and the inputs of `processing_bilstm_crf.TEXT_INPUTS` that the model
    reads, (B, S) int64 each. The outputs of a tagger are

    - `predictions`, (B, S) int64: the Viterbi path as in the model's output, computed in float64 from the float32
      emissions; -100 outside of the sequences;
    - `emissions`, (T, B, K) float32: the input of the CRF, time-major. Timestep t of a sentence is its t-th token that
      is attended to and not special, as in [`Sequences`]; those behind its end are arbitrary.

    The output of a text classifier is `logits`, (B, K), divided by the temperature of the configuration. The
    metadata of the graph has the entry `settings`, see [`settings_of`], as JSON.
    """
    is_classifier = isinstance(model, CLASSIFIERS)
    shape = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    names = [name for name, (field, *_) in TEXT_INPUTS.items() if getattr(model.config, field, False)]
    # One tensor for two inputs would make them one input.
    inputs: dict[str, tuple] = {
        name: (torch.ones(2, 8, dtype=torch.long), shape) for name in ("input_ids", "attention_mask", *names)
    }
    if not is_classifier:
        inputs[DECODES] = torch.tensor(True), None
    examples, shapes = zip(*inputs.values(), strict=True)
    program = torch.onnx.export(
        (_Classifier if is_classifier else _Tagger)(model, list(inputs)).eval(),
        examples,
        dynamo=True,
        verbose=False,
        opset_version=18,
        input_names=list(inputs),
        output_names=["logits"] if is_classifier else ["predictions", "emissions"],
        dynamic_shapes=(shapes,),
        custom_translation_table={
            torch.ops.bilstm_crf.lstm.default: _onnx_lstm,
            torch.ops.bilstm_crf.viterbi.default: _onnx_viterbi,
            torch.ops.aten.searchsorted.Tensor: _onnx_searchsorted,
            torch.ops.aten.__rshift__.Scalar: _onnx_rshift,
        },
    )
    exported = program.model
    for node in exported.graph.all_nodes():
        node.metadata_props.clear()  # stack traces of the exporter, with paths of this machine
    for value in exported.graph.inputs:
        if value.name == DECODES:
            value.const_value = ir.tensor(True, name=DECODES)
            exported.graph.register_initializer(value)
    exported.metadata_props["settings"] = json.dumps(settings_of(model, tokenizer))
    program.save(Path(path))


def settings_of(model: BiLSTMCRFPreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return what `onnx_inference` has to know of a model beside its graph and `tokenizer.json`."""
    config, is_classifier = model.config, isinstance(model, CLASSIFIERS)
    special = {config.pad_token_id, *(getattr(config, "special_token_ids", None) or [])} - {None}
    settings = {
        "task": "text-classification" if is_classifier else "token-classification",
        "labels": model.label_names(),
        "pad_token_id": config.pad_token_id or 0,
        "special_token_ids": sorted(special),
        "max_length": None,  # a BiLSTM reads whole texts
    }
    if getattr(config, "max_position_embeddings", 0) is not None:
        settings["max_length"] = limit = usable_positions(tokenizer, config)
        settings["stride"] = default_stride(limit)
    if labels_words(config):
        starts = model.base_model.features.token_table[:, config.token_columns.index("word_start")]
        settings["word_start_ids"] = starts.nonzero()[:, 0].tolist()
    if is_classifier:
        return settings | {"activation": activation(config)}
    model.update_crf()
    transitions, continues = model.crf.potentials().tolist(), model.crf.continues.tolist()
    crf = {"transitions": transitions, "continues": continues, "temperature": model.crf.temperature}
    return settings | {"crf": crf}


def activation(config: PreTrainedConfig) -> str:
    """Return the function that makes probabilities of logits, as the pipeline of transformers chooses it."""
    if config.problem_type == "regression":
        return "none"
    return "sigmoid" if config.problem_type == "multi_label_classification" or config.num_labels == 1 else "softmax"


def quantise(path: Path, target: Path) -> None:
    """Write a graph with the weights and embeddings of another one in int8."""
    quantize_dynamic(path, target, weight_type=QuantType.QInt8)
    quantised = ir.load(target)
    quantised.graph.sort()  # the quantizer has not seen what the branches of `If` read
    ir.save(quantised, target)


class _Exported(nn.Module):
    """A copy of a model with layers that the exporter can translate."""

    def __init__(self, model: BiLSTMCRFPreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.model = copy.deepcopy(model)
        for module in list(self.model.modules()):
            for name, child in module.named_children():
                if isinstance(child, BiLSTMLayer):
                    module.register_module(name, _Layer(child))


class _Classifier(_Exported):
    """The forward pass of a text classifier."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        return self.model(**dict(zip(self.names, inputs, strict=True)), return_dict=True).logits


class _Tagger(_Exported):
    """The forward pass of a tagger, down to the Viterbi path."""

    def __init__(self, model: BiLSTMCRFPreTrainedModel, names: list[str]) -> None:
        super().__init__(model, names)
        steps = model.crf.potentials()
        for name, values in {"start": steps[-1, :-1], "end": steps[:-1, -1], "transitions": steps[:-1, :-1]}.items():
            self.register_buffer(name, values)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Viterbi paths (B, S) and the emissions (T, B, K)."""
        of_model = dict(zip(self.names, inputs, strict=True))
        decodes = of_model.pop(DECODES)
        emissions, sequences = self.model.emissions(**of_model)
        crf = self.start, self.end, self.transitions
        paths = torch.ops.bilstm_crf.viterbi(emissions, sequences.lengths, sequences.chosen, decodes, *crf)
        return sequences.labels_of_tokens(paths, self.model.crf), emissions


class _Layer(nn.Module):
    """A BiLSTM layer with two LSTMs of ONNX. Their weights are (1, 4 * H, ...), with the gates in the order i, o, f, g.

    One LSTM of ONNX in both directions would read one input, and the directions of the first layer differ in theirs.
    """

    def __init__(self, layer: BiLSTMLayer) -> None:
        super().__init__()
        self.forward_lstm, self.backward_lstm = _LSTM(layer.forward_lstm, False), _LSTM(layer.backward_lstm, True)

    def forward(self, inputs: tuple[Tensor, Tensor], sequences: Sequences) -> Tensor:
        """Return the hidden states (T, B, 2 * H)."""
        ahead = self.forward_lstm(inputs[0], sequences.lengths)
        return torch.cat([ahead, self.backward_lstm(inputs[1], sequences.lengths)], -1)


class _LSTM(nn.Module):
    """An LSTM of one direction."""

    def __init__(self, lstm: nn.LSTM, is_reverse: bool) -> None:
        super().__init__()
        self.is_reverse = is_reverse
        for name in ("weight_ih", "weight_hh"):
            self.register_buffer(name, _reordered(lstm.get_parameter(f"{name}_l0"))[None])
        bias = torch.cat([_reordered(lstm.get_parameter(f"{name}_l0")) for name in ("bias_ih", "bias_hh")])
        self.register_buffer("bias", bias[None])

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return torch.ops.bilstm_crf.lstm(x, lengths, self.weight_ih, self.weight_hh, self.bias, self.is_reverse)


def _reordered(weight: Tensor) -> Tensor:
    """Return the gates of a weight in ONNX's order."""
    i, f, g, o = weight.detach().chunk(4)
    return torch.cat([i, o, f, g])


# Operators without a computation: each represents a loop in the exported program until it is translated.
library.define(
    "bilstm_crf::lstm", "(Tensor x, Tensor lengths, Tensor inputs, Tensor hidden, Tensor bias, bool reverse) -> Tensor"
)
library.define(
    "bilstm_crf::viterbi",
    "(Tensor emissions, Tensor lengths, Tensor chosen, Tensor decodes, Tensor start, Tensor end, Tensor transitions)"
    " -> Tensor",
)


@library.register_fake("bilstm_crf::lstm")
def _(x, lengths, inputs, hidden, bias, reverse):
    return x.new_empty(*x.shape[:2], hidden.shape[2])


@library.register_fake("bilstm_crf::viterbi")
def _(emissions, lengths, chosen, decodes, start, end, transitions):
    return chosen.new_empty(chosen.shape, dtype=torch.long)


def _onnx_lstm(x, lengths, inputs, hidden, bias, reverse):
    options = {"direction": "reverse" if reverse else "forward", "hidden_size": hidden.shape[2]}
    states, _, _ = op.LSTM(x, inputs, hidden, bias, op.Cast(lengths, to=INT32), **options)  # (T, 1, B, H)
    return op.Squeeze(states, op.Constant(value_ints=[1]))


def _onnx_rshift(value, bits):
    """Compute `value >> bits` of hashes, which are not negative; ONNX shifts unsigned integers only."""
    return op.Div(value, op.Constant(value_int=2**bits))


def _onnx_searchsorted(table, values, right):
    """Compute `torch.searchsorted` in a table of hashes by bisection; values come after the first, empty row."""
    at = op.Mul(op.Cast(values, to=INT64.dtype), op.Constant(value_int=0))
    last = table.shape[0] - 1
    for power in reversed(range(last.bit_length())):
        ahead = op.Add(at, op.Constant(value_int=2**power))
        found = op.Gather(table, op.Min(ahead, op.Constant(value_int=last)))
        is_in = op.And(op.LessOrEqual(ahead, op.Constant(value_int=last)), op.LessOrEqual(found, values))
        at = op.Where(is_in, ahead, at)
    return op.Add(at, op.Constant(value_int=1))


@script()
def _onnx_viterbi(
    emissions: FLOAT,
    lengths: INT64,
    chosen: BOOL,
    decodes: BOOL,
    start: DOUBLE,
    end: DOUBLE,
    transitions: DOUBLE,
) -> INT64:
    """Compute `lattice.best_path`, with masks instead of the boundary state, and unpack it; only if `decodes`."""

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

    nothing = op.Constant(value_int=IGNORED)
    if decodes:
        zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
        timesteps = op.Squeeze(op.Shape(emissions, start=0, end=1))
        behind = op.Unsqueeze(op.Range(one, op.Add(timesteps, one), one), op.Constant(value_ints=[1]))
        goes_on = op.Unsqueeze(op.Less(behind, lengths), op.Constant(value_ints=[2]))  # (T, B, 1)
        initial = op.Expand(start, op.Shape(emissions, start=1))
        _, ahead = op.Scan(
            initial,
            op.Cast(emissions, to=DOUBLE.dtype),
            goes_on,
            body=from_the_end,
            num_scan_inputs=2,
            scan_input_directions=[1, 1],
            scan_output_directions=[1],
        )
        _, path = op.Scan(initial, ahead, body=from_the_start, num_scan_inputs=1)  # (T, B)
        timestep = op.Max(op.Sub(op.CumSum(op.Cast(chosen, to=INT64.dtype), one), one), zero)  # (B, S)
        paths = op.Where(chosen, op.GatherElements(op.Transpose(path), timestep, axis=1), nothing)
    else:
        paths = op.Expand(nothing, op.Shape(chosen))
    return paths
