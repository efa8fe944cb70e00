"""Tests of the arguments that a model shares with those of transformers, and of changes of a configuration."""

import inspect

import pytest
import torch
from classifiers import new_classifier
from conftest import LABELS, new_tagger
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from torch.testing import assert_close
from transformers import (
    AutoModelForTokenClassification,
    BertConfig,
    BertForTokenClassification,
    BertModel,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

from bilstm_crf_hf import BiLSTMForPreTraining, EncoderCRFForTokenClassification, EncoderForSequenceClassification

SMALL = {"embedding_size": 16, "hidden_size": 24, "ngram_buckets": 256, "ngram_embedding_size": 8}


@pytest.fixture(scope="module")
def encoder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tokenizer, encoder):
    tagger = new_tagger(tokenizer, num_hidden_layers=2)
    heads = (EncoderCRFForTokenClassification, EncoderForSequenceClassification)
    return {
        "body": tagger.bilstm,
        "tagger": tagger,
        "classifier": new_classifier(tokenizer, num_hidden_layers=2),
        "pretraining": BiLSTMForPreTraining.from_tokenizer(tokenizer, **SMALL).eval(),
        "encoder tagger": heads[0].from_encoder(encoder, tokenizer, num_labels=3).eval(),
        "encoder classifier": heads[1].from_encoder(encoder, tokenizer, num_labels=3).eval(),
    }


NAMES = ["body", "tagger", "classifier", "pretraining", "encoder tagger", "encoder classifier"]


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_of_bert_is_accepted_as_none(models, tokenizer, texts, name):
    model, batch = models[name], tokenizer(texts[:2], padding=True, return_tensors="pt")
    arguments = inspect.signature(BertForTokenClassification.forward).parameters.keys() - {"self", "kwargs", *batch}
    arguments |= {"output_hidden_states", "output_attentions", "return_dict", "num_items_in_batch"}
    if name == "body":
        arguments -= {"labels"}
    torch.manual_seed(0)
    expected = model(**batch)[0]
    torch.manual_seed(0)
    assert torch.equal(model(**batch, **dict.fromkeys(arguments))[0], expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("inputs_embeds", torch.zeros(2, 3, 16), "give input_ids"),
        ("num_items_in_batch", 12, "loss is a mean over the batch"),
        ("num_items_in_batch", torch.tensor(0), "loss is a mean over the batch"),
        ("position_ids", torch.zeros(2, 24, dtype=torch.long), "reads the tokens in their order"),
        ("output_attentions", True, "no attention between the tokens"),
    ],
)
def test_what_a_model_cannot_follow_is_an_error(models, tokenizer, texts, name, argument, value, message):
    batch = tokenizer(texts[:2], padding=True, return_tensors="pt")
    if name.startswith("encoder") and argument in ("position_ids", "output_attentions"):
        models[name](**batch, **{argument: value[:, : batch["input_ids"].shape[1]] if argument[0] == "p" else value})
        return
    with pytest.raises(ValueError, match=message):
        models[name](**batch, **{argument: value})


@pytest.mark.parametrize("name", ["body", "tagger", "classifier", "pretraining"])
def test_hidden_states_are_the_input_and_the_output_of_each_layer(models, tokenizer, texts, name):
    model, batch = models[name], tokenizer(texts[:3], padding=True, return_tensors="pt")
    body = model.base_model
    seen = []
    hooks = [
        layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0][0], output)))
        for layer in body.layers
    ]
    output = model(**batch, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    sequences = body.sequences(**{key: batch[key] for key in ("input_ids", "attention_mask")})
    expected = [seen[0][0], *(each for _, each in seen)]
    for ours, states in zip(output.hidden_states, expected, strict=True):
        width = min(ours.shape[-1], states.shape[-1])  # the input of the forward direction is the first part
        assert_close(ours[..., :width], sequences.unpack(states)[..., :width], atol=1e-6, rtol=1e-6)
    assert model(**batch).get("hidden_states") is None
    assert len(model(**batch, return_dict=False, output_hidden_states=True)[-1]) == len(expected)


def test_requested_hidden_states_change_no_output_and_get_gradients(tokenizer, texts):
    model, batch = new_tagger(tokenizer, num_hidden_layers=2), tokenizer(texts, padding=True, return_tensors="pt")
    labels = torch.full_like(batch["input_ids"], LABELS.index("O"))
    output = model(**batch, labels=labels, output_hidden_states=True)
    assert_close(output.loss, model(**batch, labels=labels).loss)
    for states in output.hidden_states:
        states.retain_grad()
    output.loss.backward()
    assert all(states.grad.abs().sum() > 0 for states in output.hidden_states)


def test_the_configuration_has_the_defaults_of_the_arguments(tokenizer, texts):
    batch = tokenizer(texts[:2], padding=True, return_tensors="pt")
    model = new_tagger(tokenizer, output_hidden_states=True)
    assert len(model(**batch).hidden_states) == 2
    assert "hidden_states" not in model(**batch, output_hidden_states=False)


def test_an_encoder_passes_on_what_it_computes(models, encoder, tokenizer, texts):
    batch = tokenizer(texts[:2], padding=True, return_tensors="pt")
    body = BertModel.from_pretrained(encoder, attn_implementation="eager")
    positions = torch.arange(batch["input_ids"].shape[1]).flip(0)[None]
    expected = body(**batch, position_ids=positions, output_hidden_states=True, output_attentions=True)
    for name in ("encoder tagger", "encoder classifier"):
        models[name].encoder.set_attn_implementation("eager")
        output = models[name](**batch, position_ids=positions, output_hidden_states=True, output_attentions=True)
        for field in ("hidden_states", "attentions"):
            for ours, theirs in zip(output[field], expected[field], strict=True):
                assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------- inputs


@pytest.mark.parametrize(
    "name", ["body", "tagger", "classifier", "pretraining", "encoder tagger", "encoder classifier"]
)
@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (
            torch.tensor([5, 6]),
            None,
            r"integers of shape \(B, S\), for B texts of S tokens, got torch.int64 of shape \(2,\)",
        ),
        (torch.tensor([[5.0, 6.0]]), None, "got torch.float32"),
        (torch.zeros(0, 3, dtype=torch.long), None, r"shape \(0, 3\)"),
        (torch.zeros(2, 0, dtype=torch.long), None, r"shape \(2, 0\)"),
        (
            torch.tensor([[5, 6]]),
            torch.tensor([[1, 1, 1]]),
            r"attention_mask must have the shape .* \(1, 2\), got \(1, 3\)",
        ),
        (torch.tensor([[5, 6], [5, 6]]), torch.tensor([[1, 1]]), "attention_mask must have the shape"),
    ],
)
def test_inputs_of_a_wrong_shape_or_type_are_an_error(models, name, ids, mask, message):
    with pytest.raises(ValueError, match=message):
        models[name](ids, mask)


@pytest.mark.parametrize("wrong", [-1, 100000])
def test_an_id_without_an_embedding_is_an_error_that_names_it(tagger, wrong):
    with pytest.raises(ValueError, match=f"input_ids contains {wrong}, .* use its own tokenizer"):
        tagger(torch.tensor([[5, wrong]]))


# ---------------------------------------------------------------- changes of the configuration


@pytest.mark.parametrize(
    "change",
    [
        {"id2label": dict(enumerate(LABELS[::-1]))},
        {"id2label": {i: f"LABEL_{i}" for i in range(len(LABELS))}},
        {"constrained": False},
    ],
)
def test_a_changed_configuration_constrains_the_model_as_after_loading(tokenizer, texts, change, tmp_path):
    model, batch = new_tagger(tokenizer), tokenizer(texts, padding=True, return_tensors="pt")
    before = model(**batch).logits
    paths = model.nbest(**batch).predictions
    for field, value in change.items():
        setattr(model.config, field, value)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert torch.equal(model.nbest(**batch).predictions, loaded.nbest(**batch).predictions)
    assert torch.equal(model(**batch).logits, loaded(**batch).logits)
    assert not torch.equal(model(**batch).logits, before)
    assert not torch.equal(model.nbest(**batch).predictions, paths)


@pytest.mark.parametrize("name", ["tagger", "classifier", "encoder tagger", "encoder classifier"])
@pytest.mark.parametrize("change", [{0: "O"}, {0: "O", 2: "B-X", 3: "I-X"}, {"0": "O", "x": "B-X"}, {0: 1, 1: 2}])
def test_labels_that_the_model_cannot_have_are_an_error(models, tokenizer, texts, name, change):
    model, kept = models[name], models[name].config.id2label

    def tag() -> None:
        model.config.id2label = change  # which earlier versions of transformers check, too
        model(**tokenizer(texts[:2], padding=True, return_tensors="pt"))

    try:
        with pytest.raises((ValueError, StrictDataclassError), match=r"config.* labels|id2label"):
            tag()
    finally:
        model.config.id2label = kept


@pytest.mark.parametrize("name", ["tagger", "classifier", "pretraining", "encoder tagger", "encoder classifier"])
@pytest.mark.parametrize("size", [30, 500])
def test_resized_embeddings_are_saved_and_loaded(models, tokenizer, name, size, tmp_path):
    model = type(models[name])(models[name].config.__class__.from_dict(models[name].config.to_dict())).eval()
    model.resize_token_embeddings(size)
    batch = {"input_ids": torch.randint(5, size, (2, 9))}
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.get_input_embeddings().num_embeddings == size
    if name != "pretraining":
        assert torch.equal(loaded(**batch)[0], model(**batch)[0])
    else:
        assert loaded.get_output_embeddings().weight.equal(model.get_output_embeddings().weight)


# ---------------------------------------------------------------- tools on a model

CHECKPOINTING = "ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"  # its name until transformers 6


@pytest.mark.filterwarnings(CHECKPOINTING)
def test_gradient_checkpointing_of_an_encoder_changes_no_gradient(models, tokenizer, texts):
    model, batch = models["encoder tagger"], tokenizer(texts[:2], padding=True, return_tensors="pt")
    labels = torch.zeros_like(batch["input_ids"])
    gradients = []
    for switch in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        switch()
        model.train().zero_grad()
        torch.manual_seed(0)
        model(**batch, labels=labels).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.encoder.parameters()])
    model.gradient_checkpointing_disable()
    model.eval()
    assert_close(*gradients)


@pytest.mark.filterwarnings(CHECKPOINTING)
def test_gradient_checkpointing_of_a_bilstm_is_refused_before_training(tokenizer, tmp_path):
    arguments = TrainingArguments(str(tmp_path), gradient_checkpointing=True, use_cpu=True, report_to=[])
    trainer = Trainer(new_tagger(tokenizer), arguments, train_dataset=Dataset.from_dict({"input_ids": [[5, 6]]}))
    with pytest.raises(ValueError, match="does not support (activation|gradient) checkpointing"):
        trainer.train()


@pytest.mark.filterwarnings(CHECKPOINTING)
def test_lora_on_embeddings_and_a_new_head_trains_saves_and_loads(tokenizer, texts, tmp_path):
    peft = pytest.importorskip("peft")
    encoded = tokenizer(texts)
    rows = Dataset.from_dict(
        {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "labels": [[LABELS.index("O")] * len(ids) for ids in encoded["input_ids"]],
        }
    )
    options = {"target_modules": ["word_embeddings"], "modules_to_save": ["classifier", "crf"]}
    model = peft.get_peft_model(new_tagger(tokenizer), peft.LoraConfig(task_type="TOKEN_CLS", **options))
    arguments = TrainingArguments(
        str(tmp_path / "run"),
        max_steps=2,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
    )
    trainer = Trainer(model, arguments, DataCollatorForTokenClassification(tokenizer), train_dataset=rows)
    assert not trainer.model_accepts_loss_kwargs
    trainer.train()
    model.eval().save_pretrained(tmp_path / "adapter")
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    again = peft.PeftModel.from_pretrained(new_tagger(tokenizer), tmp_path / "adapter").eval()
    assert_close(again(**batch).logits, model(**batch).logits)
    assert not torch.equal(new_tagger(tokenizer)(**batch).logits, model(**batch).logits)


def test_lora_on_an_lstm_is_an_error_that_names_it(tokenizer):
    peft = pytest.importorskip("peft")
    with pytest.raises(ValueError, match="LSTM.* is not supported"):
        peft.get_peft_model(new_tagger(tokenizer), peft.LoraConfig(target_modules=["forward_lstm"]))


@pytest.mark.parametrize("name", ["tagger", "classifier", "encoder tagger", "encoder classifier"])
def test_label_names_may_have_the_keys_of_json(models, tokenizer, texts, name, tmp_path):
    """As in `config.json`: BERT computes with them, and the pipelines look up integers."""
    model, batch = models[name], tokenizer(texts[:2], padding=True, return_tensors="pt")
    before = model.config.id2label
    try:
        model.config.id2label = {str(i): f"X{i}" for i in range(model.num_labels)}
        model(**batch)
        assert model.config.id2label == {i: f"X{i}" for i in range(model.num_labels)}
    finally:
        model.config.id2label = before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ids", [None, [[5, 6]], torch.tensor([[5.0, 6.0]])])
def test_ids_that_are_no_tensor_of_integers_are_an_error(models, name, ids):
    with pytest.raises(ValueError, match="input_ids must be"):
        models[name](ids)
