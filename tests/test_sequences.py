"""Tests of sequences and of the layers over them, against one piece and against PyTorch's own LSTM."""

import pytest
import torch
from conftest import new_tagger
from torch.testing import assert_close

from bilstm_crf_hf.sequences import LSTM_ELEMENTS, BiLSTMLayer, Sequences


def layer_and_batch(piece: int | None = None):
    """Return a layer of 3 inputs and 2 * 2 outputs, random inputs of sequences of lengths 11, 7 and 1, and these."""
    torch.manual_seed(0)
    layer = BiLSTMLayer((3, 3), 4)
    if piece is not None:
        layer.piece = piece
    sequences = Sequences(torch.arange(11) < torch.tensor([[11], [7], [1]]), None, [0])
    return layer, torch.randn(11, 3, 3, requires_grad=True), sequences


@pytest.mark.parametrize("timesteps", [1, 2, 5, 10])
def test_pieces_of_timesteps_give_the_outputs_and_gradients_of_one_piece(timesteps):
    results = []
    for piece in (None, 3 * timesteps):
        layer, x, sequences = layer_and_batch(piece)
        output = layer((x, x), sequences) * sequences.inside[..., None]
        output.square().sum().backward()
        results.append([output, x.grad, *(parameter.grad for parameter in layer.parameters())])
    for ours, expected in zip(*results, strict=True):
        assert_close(ours, expected, atol=1e-6, rtol=1e-6)


def test_a_batch_has_at_least_one_timestep_in_a_piece():
    layer, x, sequences = layer_and_batch(piece=1)
    assert_close(layer((x, x), sequences), layer_and_batch()[0]((x, x), sequences), atol=1e-6, rtol=1e-6)


def test_a_usual_batch_is_one_piece():
    """128 texts of 512 tokens, with the input and output sizes of the default configuration."""
    assert LSTM_ELEMENTS // max(304, 304, 384) > 128 * 512


def test_a_long_text_is_tagged_like_the_same_text_in_one_piece(tokenizer, texts):
    batch = tokenizer(" ".join(texts * 5), return_tensors="pt")
    usual, pieces = new_tagger(tokenizer, num_hidden_layers=2), new_tagger(tokenizer, num_hidden_layers=2)
    for layer in pieces.bilstm.layers:
        layer.piece = 7
    assert_close(pieces(**batch).logits, usual(**batch).logits, atol=1e-5, rtol=1e-5)
    assert torch.equal(pieces(**batch).predictions, usual(**batch).predictions)


@pytest.mark.slow
def test_more_tokens_than_one_call_of_the_lstm_kernel_takes():
    """oneDNN reports that it could not create a primitive for one sentence of 2^27 elements (T, H)."""
    layer = BiLSTMLayer((1, 1), 2 * 64)
    x = torch.randn(2**21 + 2**16, 1, 1)
    with torch.no_grad():
        output = layer.run_lstm(layer.forward_lstm, x)
        assert output.shape == (len(x), 1, 64)
        end = layer.forward_lstm(x[-200:])[0]  # an LSTM with random weights forgets what is farther away
    assert_close(output[-1], end[-1], atol=1e-6, rtol=1e-6)
