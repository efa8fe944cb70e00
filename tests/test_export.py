"""Tests of models under `torch.export` and `torch.compile`, against the same models without them."""

import pytest
import torch
from classifiers import new_classifier
from clean_process import run_without_package
from conftest import LABELS, new_reader, new_tagger
from torch.testing import assert_close
from transformers import BertConfig

from bilstm_crf_hf import EncoderCRFForTokenClassification, EncoderForSequenceClassification
from bilstm_crf_hf.evaluation.tasks import label_maps
from bilstm_crf_hf.morphemes import NUM_PARTS_OF_SPEECH

SIZES = [(1, 1), (1, 30), (2, 9), (7, 40), (40, 3)]
"""Numbers of texts and tokens that differ from those of the example, (3, 11)."""


def random_batch(model, batch: int, tokens: int) -> dict[str, torch.Tensor]:
    """Return random texts, the first as long as possible, padded on either side; there may be empty ones."""
    torch.manual_seed(batch + tokens)
    ids = torch.randint(1, model.get_input_embeddings().num_embeddings, (batch, tokens))
    lengths = torch.randint(0, tokens + 1, (batch, 1))
    lengths[0] = tokens
    mask = torch.arange(tokens) < lengths
    mask[::2] = mask[::2].flip(1)
    inputs = {"input_ids": ids * mask, "attention_mask": mask.long()}
    if getattr(model.config, "read_morphemes", False):
        hashes = model.bilstm.features.noun_hashes
        known = hashes[torch.randint(len(hashes), ids.shape)].clamp(min=0).long()
        inputs["morpheme_ids"] = (known * NUM_PARTS_OF_SPEECH + ids % NUM_PARTS_OF_SPEECH) * 2 + ids % 2
    return inputs


def new_bert() -> BertConfig:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertConfig(vocab_size=50, **shape)


def new_encoder_tagger(**config) -> EncoderCRFForTokenClassification:
    torch.manual_seed(0)
    fields = {"encoder_config": new_bert(), "pad_token_id": 0, "special_token_ids": [2, 3], **label_maps(LABELS)}
    return EncoderCRFForTokenClassification(EncoderCRFForTokenClassification.config_class(**fields, **config)).eval()


def new_encoder_classifier() -> EncoderForSequenceClassification:
    torch.manual_seed(0)
    config_class = EncoderForSequenceClassification.config_class
    return EncoderForSequenceClassification(config_class(encoder_config=new_bert(), pad_token_id=0)).eval()


MODELS = {
    "tagger": new_tagger,
    "two layers": lambda tokenizer: new_tagger(tokenizer, num_hidden_layers=2, temperature=1.5, constrained=False),
    "morphemes": new_reader,
    "classifier": new_classifier,
    "encoder": lambda _: new_encoder_tagger(),
    "encoder and BiLSTM": lambda _: new_encoder_tagger(num_lstm_layers=1, lstm_hidden_size=12),
    "encoder classifier": lambda _: new_encoder_classifier(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_an_exported_program_computes_what_the_model_does_for_any_batch_size_length_and_padding(name, tokenizer):
    model = MODELS[name](tokenizer)
    example = random_batch(model, 3, 11)
    shape = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    program = torch.export.export(model, (), example, dynamic_shapes=dict.fromkeys(example, shape)).module()
    for size in SIZES:
        batch = random_batch(model, *size)
        with torch.no_grad():
            found, expected = program(**batch), model(**batch)
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            assert_close(found[key], values, atol=1e-5, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.slow
def test_a_saved_program_that_returns_a_tuple_needs_no_package(tokenizer, tmp_path):
    model = new_tagger(tokenizer)
    example = random_batch(model, 3, 11)
    batch = random_batch(model, 5, 17)
    expected = model(**batch).predictions.tolist()
    model.config.return_dict = False
    shape = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    program = torch.export.export(model, (), example, dynamic_shapes=dict.fromkeys(example, shape))
    torch.export.save(program, tmp_path / "tagger.pt2")
    torch.save(batch, tmp_path / "batch.pt")
    code = """
        import json, torch
        program = torch.export.load("tagger.pt2").module()
        logits, predictions, _ = program(**torch.load("batch.pt"))
        print(json.dumps(predictions.tolist()))
    """
    assert run_without_package(code, tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tagger", "classifier", "encoder and BiLSTM"])
def test_a_compiled_model_computes_and_learns_the_same_and_is_compiled_for_any_length(name, tokenizer):
    """The backend `eager` leaves out the compiler itself, which knows nothing of graphs and lengths."""
    model = MODELS[name](tokenizer)
    torch.compiler.reset()
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, backend=backend, dynamic=True)
    counts = []
    for size in [(3, 11), (2, 9), (7, 40), (40, 3), (5, 90)]:
        batch = random_batch(model, *size)
        labels = torch.zeros(size[0], dtype=torch.long) if "classifier" in name else torch.full(size, len(LABELS) - 1)
        if "classifier" not in name:
            labels = labels.masked_fill(~model.sequences(batch["input_ids"], batch["attention_mask"]).chosen, -100)
        results = []
        for run in (compiled, model):
            output = run(**batch, labels=labels)
            output.loss.backward()
            results.append([*output.values(), *(p.grad for p in model.parameters() if p.grad is not None)])
            model.zero_grad()
        for found, expected in zip(*results, strict=True):
            assert_close(found, expected, atol=1e-5, rtol=1e-4)
        counts.append(len(graphs))
    assert counts[1] == counts[-1]
    torch.compiler.reset()
