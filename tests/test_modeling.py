import pytest
import torch
from clean_process import run_without_package
from conftest import LABELS, new_tagger
from torchcrf import CRF
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification

from bilstm_crf_hf import BiLSTMCRFConfig, BiLSTMCRFForTokenClassification, BiLSTMCRFModel
from bilstm_crf_hf.token_table import TOKEN_COLUMNS


def spread(output, row: int, width: int) -> list[torch.Tensor]:
    return [output[key][row, :width] for key in ("logits", "predictions", "path_log_probs")]


# ---------------------------------------------------------------- configuration


def test_auto_classes_know_the_model_type():
    config = AutoConfig.for_model("bilstm_crf", vocab_size=50, num_labels=3)
    assert isinstance(config, BiLSTMCRFConfig)
    assert isinstance(AutoModel.from_config(config), BiLSTMCRFModel)
    assert isinstance(AutoModelForTokenClassification.from_config(config), BiLSTMCRFForTokenClassification)


def test_the_blogs_model_is_one_configuration_away():
    """Compare with the tutorial: 32,000 embeddings of size 768, one layer of 128 + 128, parameters counted by hand."""
    config = BiLSTMCRFConfig(
        vocab_size=32000,
        embedding_size=768,
        hidden_size=256,
        ngrams=[],
        jamo_embedding_size=0,
        locked_dropout=0.0,
        word_dropout=0.0,
    )
    config.num_labels = 13
    model = BiLSTMCRFForTokenClassification(config)
    lstm = 2 * 4 * (768 * 128 + 128 * 128 + 128 + 128)
    assert model.num_parameters() == 32000 * 768 + lstm + 256 * 13 + 13 + 13 * 13 + 13 + 13


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_size", 255, "even"),
        ("hidden_size", "256", "hidden_size"),
        ("num_hidden_layers", 0, "at least 1"),
        ("word_dropout", 1.0, r"\[0, 1\)"),
        ("ngrams", [[1, -1]], "first <= last"),
        ("ngrams", [[0]], "first <= last"),
        ("temperature", 0, "temperature must be a positive and finite number"),
        ("temperature", -1.5, "temperature must be a positive and finite number"),
        ("temperature", float("inf"), "temperature must be a positive and finite number"),
        ("temperature", float("nan"), "temperature must be a positive and finite number"),
    ],
)
def test_configuration_refuses(field, value, message):
    with pytest.raises(Exception, match=message):
        BiLSTMCRFConfig(**{field: value})


def test_fields_that_are_none_have_their_defaults():
    config = BiLSTMCRFConfig(ngrams=None, token_columns=None)
    assert config.ngrams == BiLSTMCRFConfig().ngrams == [[-1, 0], [0, 1]]
    assert config.token_columns == BiLSTMCRFConfig().token_columns == list(TOKEN_COLUMNS[:5])
    assert BiLSTMCRFConfig(unit="words").token_columns == list(TOKEN_COLUMNS)
    config.ngrams.append([-2, 0])
    assert len(BiLSTMCRFConfig().ngrams) == 2


# ---------------------------------------------------------------- inputs


@pytest.mark.parametrize("name", ["attention_masks", "output_hidden_state", "morpheme_id"])
@pytest.mark.parametrize("method", ["forward", "nbest", "emissions"])
def test_an_unknown_argument_is_a_type_error(tagger, tokenizer, method, name):
    ids = tokenizer("서울", return_tensors="pt").input_ids
    for value in (True, torch.ones_like(ids), None):
        with pytest.raises(TypeError, match=f"got an unexpected keyword argument '{name}'"):
            getattr(tagger, method)(ids, **{name: value})


# ---------------------------------------------------------------- outputs


def test_a_sentence_does_not_depend_on_padding_and_neighbours(tagger, tokenizer, texts):
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        together = tagger(**batch)
        for row, text in enumerate(texts):
            alone = tagger(**tokenizer(text, return_tensors="pt"))
            width = alone.logits.shape[1]
            for ours, others in zip(spread(alone, 0, width), spread(together, row, width), strict=True):
                torch.testing.assert_close(ours, others, atol=1e-5, rtol=0)


def test_padding_side_and_special_tokens_make_no_difference(tagger, tokenizer, texts):
    with torch.no_grad():
        usual = tagger(**tokenizer(texts, padding=True, return_tensors="pt"))
        bare = tagger(
            **tokenizer(texts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt")
        )
    for row in range(len(texts)):
        inside = usual.predictions[row] != -100
        other = bare.predictions[row] != -100
        assert usual.predictions[row][inside].tolist() == bare.predictions[row][other].tolist()
        torch.testing.assert_close(usual.logits[row][inside], bare.logits[row][other], atol=1e-5, rtol=0)


def test_without_a_mask_padding_is_recognised_by_its_id(tagger, tokenizer, texts):
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(tagger(batch["input_ids"]).logits, tagger(**batch).logits)


def test_the_chain_is_what_is_attended_to_and_not_special(tagger, tokenizer, texts):
    batch = tokenizer(texts, padding=True, return_tensors="pt", return_special_tokens_mask=True)
    special = batch.pop("special_tokens_mask").bool()
    predictions = tagger(**batch).predictions
    assert torch.equal(predictions == -100, special)


def test_outputs_equal_torchcrf_on_the_same_emissions(tagger, tokenizer, texts):
    """Compare loss and best paths with those of pytorch-crf on the emissions of one sentence at a time."""
    reference = CRF(len(LABELS), batch_first=True)
    reference.load_state_dict(tagger.crf.state_dict())
    with torch.no_grad():
        possible = tagger.crf.possible
        reference.start_transitions.masked_fill_(~possible[-1, :-1], -1e4)
        reference.end_transitions.masked_fill_(~possible[:-1, -1], -1e4)
        reference.transitions.masked_fill_(~possible[:-1, :-1], -1e4)
    losses = []
    for text in texts:
        batch = tokenizer(text, return_tensors="pt")
        hidden = tagger.bilstm(**batch).last_hidden_state[:, 1:-1]
        emissions = tagger.classifier(hidden)
        labels = torch.full(batch["input_ids"].shape, LABELS.index("O"))
        labels[0, [0, -1]] = -100
        output = tagger(**batch, labels=labels)
        assert reference.decode(emissions)[0] == output.predictions[0, 1:-1].tolist()
        losses.append(-reference(emissions, labels[:, 1:-1]))
        torch.testing.assert_close(output.loss, losses[-1], rtol=1e-5, atol=1e-5)


def test_softmax_of_logits_is_the_posterior(tagger, tokenizer, texts):
    batch = tokenizer(texts[0], return_tensors="pt")
    emissions = tagger.classifier(tagger.bilstm(**batch).last_hidden_state[:, 1:-1]).transpose(0, 1)
    expected = tagger.crf.marginals(emissions)[:, 0]
    torch.testing.assert_close(tagger(**batch).logits[0, 1:-1].softmax(-1), expected, atol=1e-6, rtol=0)


def test_a_temperature_of_the_configuration_flattens_every_probability_and_changes_no_path(tokenizer, texts):
    """Of logits, of all paths of `nbest`, and of labels; it counts at once, and not in training."""
    model = new_tagger(tokenizer, locked_dropout=0.0, ngram_dropout=0.0, word_dropout=0.0)
    batch = tokenizer(["서울에"], return_tensors="pt")
    labels = model(**batch).predictions
    count = int((labels != -100).sum())
    every = model.nbest(**batch, num_paths=len(LABELS) ** count)
    before, loss = model(**batch), model.train()(**batch, labels=labels).loss
    model.config.temperature = 2
    assert model(**batch, labels=labels).loss == loss

    output, paths = model.eval()(**batch, labels=labels), model.nbest(**batch, num_paths=len(LABELS) ** count)
    expected = every.probabilities[0].sqrt() / every.probabilities[0].sqrt().sum()  # of the temperature 2
    assert torch.equal(paths.predictions, every.predictions)
    torch.testing.assert_close(paths.probabilities[0], expected)
    torch.testing.assert_close(output.loss, -expected[0].log())
    chain = every.predictions[0][:, labels[0] != -100].clamp(min=0)  # (N, T)
    marginals = torch.einsum("ntk,n->tk", torch.nn.functional.one_hot(chain, len(LABELS)).float(), expected)
    torch.testing.assert_close(output.logits[labels != -100].exp(), marginals)
    assert torch.equal(output.predictions, before.predictions)
    assert not torch.allclose(output.logits, before.logits, atol=0.1)


def test_unknown_labels_are_summed_over(tagger, tokenizer, texts):
    """P(first tag) is the sum over the labels of the second: the chain has no hole, and no constant is added."""
    batch = tokenizer("서울", return_tensors="pt")
    seconds = [i for i, label in enumerate(LABELS) if label[:2] != "I-" or label == "I-LC"]
    labels = torch.full((len(seconds), 4), -100)
    labels[:, 1], labels[:, 2] = LABELS.index("B-LC"), torch.tensor(seconds)
    each = [tagger(**batch, labels=row[None]).loss for row in labels]
    total = torch.stack(each).neg().logsumexp(0)
    labels[0, 2] = -100
    torch.testing.assert_close(-tagger(**batch, labels=labels[:1]).loss, total, atol=1e-5, rtol=1e-5)


def test_sentences_without_a_token(tagger, tokenizer):
    batch = tokenizer(["", "서울", "   "], padding=True, return_tensors="pt")
    labels = torch.full(batch["input_ids"].shape, -100)
    output = tagger(**batch, labels=labels)
    assert output.loss.item() == pytest.approx(0, abs=1e-6)
    assert (output.predictions[[0, 2]] == -100).all()
    assert not output.logits[[0, 2]].any()


def test_tuples_on_demand(tagger, tokenizer, texts):
    batch = tokenizer(texts[0], return_tensors="pt")
    logits, predictions, _ = tagger(**batch, return_dict=False)
    assert torch.equal(predictions, tagger(**batch).predictions)
    assert logits.shape == (*predictions.shape, len(LABELS))


def test_layers_equal_packed_lstms(tokenizer, texts):
    """Compare the hidden states of two layers with PyTorch's packed bidirectional LSTM with the same weights."""
    model = new_tagger(tokenizer, num_hidden_layers=2).bilstm
    batch = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    sequences = model.sequences(**batch)
    x, _ = model.features(batch["input_ids"], sequences)
    for layer in model.layers:
        reference = torch.nn.LSTM(x.shape[-1], 12, bidirectional=True)
        state = {f"{name}": value for name, value in layer.forward_lstm.state_dict().items()}
        state |= {f"{name}_reverse": value for name, value in layer.backward_lstm.state_dict().items()}
        reference.load_state_dict(state)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, sequences.lengths, enforce_sorted=False)
        x, _ = torch.nn.utils.rnn.pad_packed_sequence(reference(packed)[0])
    hidden = model(**batch).last_hidden_state.transpose(0, 1)
    torch.testing.assert_close(hidden, x * sequences.inside[..., None], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "share", "scale"),
    [
        ("embedding_dropout", 0.25, 4 / 3),
        ("locked_dropout", 0.5, 2),
        ("ngram_dropout", 0.25, 1),
        ("word_dropout", 0.5, 1),
    ],
)
def test_a_dropout_zeroes_its_share_and_leaves_the_rest_of_the_input(tokenizer, texts, name, share, scale):
    """The input of the first layer has 16 columns of the embedding, 2 * 8 of n-grams and 3 * 16 of jamo."""
    rates = dict.fromkeys(("embedding_dropout", "locked_dropout", "ngram_dropout", "word_dropout"), 0.0) | {name: share}
    model = new_tagger(tokenizer, **rates).bilstm
    seen = []
    model.layers[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0][0].detach()))
    batch = tokenizer(texts * 8, padding=True, return_tensors="pt")
    for mode in (False, True):
        model.train(mode)(**batch)
    exact, dropped = seen
    zeroed = dropped == 0
    torch.testing.assert_close(dropped[~zeroed], exact[~zeroed] * scale)
    if name == "ngram_dropout":
        assert not zeroed[..., :16].any()
        assert not zeroed[..., 32:].any()
        zeroed = zeroed[..., 16:32].unflatten(-1, (2, 8))
    dimension = {"locked_dropout": 0, "ngram_dropout": -1, "word_dropout": -1}.get(name)  # dropped as a whole
    if dimension is not None:
        assert torch.equal(zeroed.all(dimension), zeroed.any(dimension))
    assert zeroed.double().mean().item() == pytest.approx(share, abs=0.05)


def test_autocast_and_half_precision_stay_close(tokenizer, texts):
    model = new_tagger(tokenizer, locked_dropout=0.0, ngram_dropout=0.0, word_dropout=0.0).train()
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    labels = torch.where(model.bilstm.sequences(**batch).chosen, LABELS.index("O"), -100)
    exact = model(**batch, labels=labels).loss
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(**batch, labels=labels).loss
    mixed.backward()
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(exact.item(), rel=0.02)
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model.to(torch.bfloat16)(**batch, labels=labels).loss.item() == pytest.approx(exact.item(), rel=0.05)


# ---------------------------------------------------------------- initialisation, saving, loading


def test_fresh_weights(tokenizer):
    model = BiLSTMCRFForTokenClassification.from_tokenizer(tokenizer, num_labels=3)
    for layer in model.bilstm.layers:
        for lstm in (layer.forward_lstm, layer.backward_lstm):
            forget = (lstm.bias_ih_l0 + lstm.bias_hh_l0).view(4, -1)
            assert torch.equal(forget, torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None].expand_as(forget))
            square = lstm.weight_hh_l0[: lstm.hidden_size]
            assert square.abs().max() > 0
    assert model.crf.transitions.abs().max() <= 0.1


def test_saved_and_loaded_model_is_the_same(tagger, tokenizer, texts, tmp_path):
    tagger.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert type(loaded) is BiLSTMCRFForTokenClassification
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    for ours, theirs in zip(tagger(**batch).to_tuple(), loaded(**batch).to_tuple(), strict=True):
        assert torch.equal(ours, theirs)
    assert [p.name for p in tmp_path.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".pkl")] == []


def test_new_label_set_on_a_trained_model(tagger, tmp_path):
    """The head that the checkpoint lacks is initialised, and its constraints are those of the new labels."""
    tagger.save_pretrained(tmp_path)
    names = {0: "B-OG", 1: "I-OG", 2: "O"}
    model = AutoModelForTokenClassification.from_pretrained(
        tmp_path, id2label=names, label2id={v: k for k, v in names.items()}, ignore_mismatched_sizes=True
    )
    assert model.crf.transitions.abs().max() <= 0.1
    assert model.crf.possible[:-1, :-1].tolist() == [[True] * 3, [True] * 3, [True, False, True]]
    assert model.classifier.weight.isfinite().all()
    assert torch.equal(model.bilstm.features.token_table, tagger.bilstm.features.token_table)


def test_the_body_loads_without_its_head(tagger, tokenizer, texts, tmp_path):
    tagger.save_pretrained(tmp_path)
    batch = tokenizer(texts[0], return_tensors="pt")
    body = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(body(**batch).last_hidden_state, tagger.bilstm(**batch).last_hidden_state)


def test_embeddings_can_be_resized(tokenizer):
    model = new_tagger(tokenizer)
    size = model.config.vocab_size
    batch = tokenizer("서울에서", return_tensors="pt")
    before = model(**batch).logits
    model.resize_token_embeddings(size + 3)
    assert model.get_input_embeddings().num_embeddings == model.config.vocab_size == size + 3
    assert torch.equal(model(**batch).logits, before)
    batch["input_ids"][0, 1] = size + 2
    assert model(**batch).logits.isfinite().all()


@pytest.mark.slow
def test_exported_folder_works_without_the_package(tokenizer, texts, tmp_path):
    tagger = new_tagger(tokenizer, temperature=1.5)
    export = tmp_path / "export"
    tagger.save_pretrained(export)
    tokenizer.save_pretrained(export)
    found = run_without_package(
        f"""
        import json, torch
        from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained({str(export)!r}, trust_remote_code=False)
        model = AutoModelForTokenClassification.from_pretrained({str(export)!r}, trust_remote_code=True)
        body = AutoModel.from_pretrained({str(export)!r}, trust_remote_code=True)
        batch = tokenizer({texts!r}, padding=True, return_tensors="pt")
        with torch.no_grad():
            output, hidden = model(**batch), body(**batch).last_hidden_state
        model.save_pretrained("again")
        again = AutoModelForTokenClassification.from_pretrained("./again", trust_remote_code=True)
        assert torch.equal(again(**batch).logits, output.logits)
        print(json.dumps([type(body).__name__, output.logits.tolist(), output.predictions.tolist(), hidden.tolist()]))
        """,
        tmp_path,
    )
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected, hidden = tagger(**batch), tagger.bilstm(**batch).last_hidden_state
    assert found[0] == "BiLSTMCRFModel"
    torch.testing.assert_close(torch.tensor(found[1]), expected.logits, atol=1e-6, rtol=0)
    assert found[2] == expected.predictions.tolist()
    torch.testing.assert_close(torch.tensor(found[3]), hidden, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_missing_pytorch_crf_is_called_by_its_name(tagger, tmp_path):
    tagger.save_pretrained(tmp_path / "export")
    message = run_without_package(
        f"""
        import json, sys
        sys.modules["torchcrf"] = None
        from transformers import AutoModelForTokenClassification
        try:
            AutoModelForTokenClassification.from_pretrained({str(tmp_path / "export")!r}, trust_remote_code=True)
        except ImportError as error:
            print(json.dumps(str(error)))
        """,
        tmp_path,
    )
    assert "pip install pytorch-crf" in message
