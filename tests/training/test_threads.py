"""Tests of the threads of a training, against one thread."""

import copy
import io
import json
import os
import subprocess
import sys
import threading
import weakref
from textwrap import dedent

import pytest
import torch
from classifiers import new_classifier
from conftest import new_tagger
from transformers import BertConfig, TrainerCallback

from bilstm_crf_hf import EncoderCRFConfig, EncoderCRFForTokenClassification
from bilstm_crf_hf.sequences import BiLSTMLayer
from bilstm_crf_hf.training import threads
from bilstm_crf_hf.training.arguments import TaggerTrainingArguments
from bilstm_crf_hf.training.threads import training_threads
from bilstm_crf_hf.training.trainer import TaggerTrainer


@pytest.fixture(autouse=True)
def _two_cpus(monkeypatch):
    monkeypatch.setattr(threads, "usable_cpus", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def layers_in_threads(model) -> int:
    """Run the model, and return the number of layers whose two directions ran in a thread each."""
    layers = [layer for layer in model.modules() if isinstance(layer, BiLSTMLayer)]
    lstms, used = [lstm for layer in layers for lstm in (layer.forward_lstm, layer.backward_lstm)], []
    hooks = [lstm.register_forward_hook(lambda *_: used.append(threading.get_ident())) for lstm in lstms]
    with torch.random.fork_rng(devices=()), torch.no_grad():
        model(torch.tensor([[5, 6]]))
    for hook in hooks:
        hook.remove()
    assert len(used) == 2 * len(layers)
    return len(used) - used.count(threading.get_ident())


def new_encoder():
    bert = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    config = EncoderCRFConfig(encoder_config=bert.to_dict(), num_lstm_layers=1, lstm_hidden_size=8, pad_token_id=0)
    return EncoderCRFForTokenClassification(config).eval()


@pytest.mark.parametrize("frozen", [(), ("features",), ("forward_lstm",), ("features", "layers")])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_directions_in_threads_give_the_outputs_and_gradients_of_one_thread(dtype, frozen, tokenizer, texts):
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    results = []
    for in_threads in (False, True):
        model = new_tagger(tokenizer, num_hidden_layers=2).train()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not any(part in name for part in frozen))
        labels = torch.where(model.bilstm.sequences(**batch).chosen, 6, -100)
        torch.manual_seed(0)
        torch.set_num_threads(2 if in_threads else 1)
        with training_threads(model), torch.autocast("cpu", dtype, enabled=dtype is not None):
            assert layers_in_threads(model) == (2 if in_threads else 0)
            assert torch.get_num_threads() == 1
            output = model(**batch, labels=labels)
            output.loss.backward()
            with torch.no_grad():
                evaluated = model.eval()(**batch)
        assert not evaluated.logits.requires_grad
        results.append([output.logits, *evaluated.values(), *(parameter.grad for parameter in model.parameters())])
    for one, two in zip(*results, strict=True):
        assert (one is None and two is None) or torch.equal(one, two)


def test_settings_and_layers_are_as_before_after_training(tokenizer):
    model = new_tagger(tokenizer)
    with training_threads(model):
        assert layers_in_threads(model) == 1
    assert layers_in_threads(model) == 0
    assert torch.get_num_threads() == 2
    with pytest.raises(ValueError, match="input_ids must be integers"), training_threads(model):
        model(torch.zeros(1, 2, 3))
    assert layers_in_threads(model) == 0


@pytest.mark.parametrize(
    ("omp", "torch_threads", "cpus", "expected"),
    [
        (None, 2, 2, (1, True)),
        (None, 64, 64, (1, True)),
        (None, 64, 1, (1, False)),  # a quota of one CPU on a large machine
        (None, 1, 64, (1, False)),  # torch.set_num_threads(1)
        ("1", 1, 2, (1, False)),
        ("8", 8, 8, (8, False)),
        ("8", 8, 2, (1, True)),
        ("8", 8, 4, (4, False)),
    ],
)
def test_threads_follow_the_usable_cpus_and_the_settings_of_the_user(
    omp, torch_threads, cpus, expected, tokenizer, monkeypatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    monkeypatch.setattr(threads, "usable_cpus", lambda: cpus)
    torch.set_num_threads(torch_threads)
    for model in (new_tagger(tokenizer), new_classifier(tokenizer)):
        with training_threads(model):
            assert (torch.get_num_threads(), layers_in_threads(model) == 1) == expected


def test_the_threads_of_other_models_are_limited_by_the_usable_cpus(monkeypatch):
    torch.set_num_threads(64)
    with training_threads(torch.nn.Linear(2, 2)):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 64


def test_an_encoder_has_threads_that_share_operations():
    model = new_encoder()
    with training_threads(model):
        assert (torch.get_num_threads(), layers_in_threads(model)) == (2, 0)


def test_models_made_in_the_context_run_in_its_threads(tokenizer):
    model = new_tagger(tokenizer)
    with training_threads(model):
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        copies = copy.deepcopy(model), torch.load(buffer, weights_only=False), new_tagger(tokenizer)
        assert [layers_in_threads(each) for each in copies] == [1, 1, 1]
    assert [layers_in_threads(each) for each in copies] == [0, 0, 0]


def test_a_model_is_exported_in_the_context(tokenizer):
    model, inputs = new_classifier(tokenizer), (torch.tensor([[5, 6, 7], [5, 6, 6]]),)
    with training_threads(model):
        program = torch.export.export(model, inputs)
    assert torch.allclose(program.module()(*inputs).logits, model(*inputs).logits, atol=1e-6)


def test_trainings_within_and_beside_a_training_leave_its_threads(tokenizer):
    model = new_tagger(tokenizer)
    beside = []
    with training_threads(model):
        with training_threads(new_tagger(tokenizer)):
            assert layers_in_threads(model) == 1
        assert layers_in_threads(model) == 1
        thread = threading.Thread(target=lambda: beside.append(layers_in_threads(model)))
        thread.start()
        thread.join()
        assert (beside, layers_in_threads(model)) == ([0], 1)
    assert layers_in_threads(model) == 0


def training_loss(model, batch):
    labels = torch.where(model.bilstm.sequences(**batch).chosen, 6, -100)
    torch.manual_seed(0)
    return model.train()(**batch, labels=labels).loss


def test_a_retained_graph_is_differentiated_again(tokenizer, texts):
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    gradients = []
    for count in (1, 2):
        torch.set_num_threads(count)
        model = new_tagger(tokenizer, num_hidden_layers=2)
        with training_threads(model):
            loss = training_loss(model, batch)
            loss.backward(retain_graph=True)
            loss.backward()
            with pytest.raises(RuntimeError, match="backward through the graph a second time"):
                loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


def test_a_graph_is_freed_when_it_is_no_longer_retained(tokenizer, texts):
    model = new_tagger(tokenizer)
    outputs = []
    for lstm in (model.bilstm.layers[0].forward_lstm, model.bilstm.layers[0].backward_lstm):
        lstm.register_forward_hook(lambda *args: outputs.append(weakref.ref(args[2][0])))
    with training_threads(model):
        loss = training_loss(model, tokenizer(texts, padding=True, return_tensors="pt"))
        loss.backward(retain_graph=True)
        assert [output() is None for output in outputs] == [False, False]
        loss.backward()
        assert [output() is None for output in outputs] == [True, True]


def test_an_error_in_the_second_thread_reaches_the_caller(tokenizer, texts):
    model = new_tagger(tokenizer)
    model.bilstm.layers[0].backward_lstm.register_forward_pre_hook(lambda *_: 1 / 0)
    with training_threads(model), pytest.raises(ZeroDivisionError):
        model(**tokenizer(texts, padding=True, return_tensors="pt"))


@pytest.mark.parametrize("options", [{}, {"bf16": True}, {"gradient_accumulation_steps": 2, "ema_decay": 0.9}])
def test_trained_and_resumed_models_equal_those_of_one_thread(options, tokenizer, corpus, tmp_path):
    """The run in two threads is interrupted after its first epoch."""

    def train(folder, resume=None, **more):
        torch.manual_seed(0)
        arguments = {"num_train_epochs": 2, "use_cpu": True, "disable_tqdm": True, "eval_strategy": "no"}
        arguments |= {"save_strategy": "epoch", "save_total_limit": 2, "load_best_model_at_end": False}
        arguments = TaggerTrainingArguments(str(tmp_path / folder), **(arguments | {"report_to": "none"} | options))
        model = new_tagger(tokenizer)
        trainer = TaggerTrainer(model, arguments, train_dataset=corpus.inputs, processing_class=tokenizer)
        trainer.train(resume_from_checkpoint=resume)
        return model.state_dict()

    torch.set_num_threads(1)
    one = train("one")
    torch.set_num_threads(2)
    two = train("two")
    first = min((tmp_path / "two").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    resumed = train("two", str(first))
    assert all(torch.equal(one[name], two[name]) and torch.equal(one[name], resumed[name]) for name in one)


def test_a_model_of_model_init_is_trained_in_threads_and_copied_meanwhile(tokenizer, corpus, tmp_path):
    class Copies(TrainerCallback):
        def __init__(self):
            self.copies, self.in_threads = [], []

        def on_step_end(self, args, state, control, model, **kwargs):
            self.in_threads.append(layers_in_threads(model))
            torch.save(model, tmp_path / "model.pt")
            self.copies = [copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)]

    arguments = TaggerTrainingArguments(
        str(tmp_path / "run"), max_steps=2, use_cpu=True, disable_tqdm=True, report_to="none", eval_strategy="no",
        save_strategy="no", load_best_model_at_end=False,
    )  # fmt: skip
    callback, weights = Copies(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        trainer = TaggerTrainer(
            args=arguments, train_dataset=corpus.inputs, processing_class=tokenizer, callbacks=[callback],
            model_init=lambda: new_tagger(tokenizer),
        )  # fmt: skip
        trainer.train()
        weights += [each.state_dict() for each in (trainer.model, *callback.copies)]
    assert callback.in_threads == [0, 0, 1, 1]
    assert all(torch.equal(each[name], weights[0][name]) for each in weights for name in each)


@pytest.mark.slow
@pytest.mark.parametrize(("omp", "expected"), [("1", [1, 0]), ("2", [1, 1])])
def test_the_setting_of_the_environment_is_kept(omp, expected):
    code = """
        import json, threading, torch
        from bilstm_crf_hf import BiLSTMCRFConfig, BiLSTMForSequenceClassification
        from bilstm_crf_hf.training import threads
        threads.usable_cpus = lambda: 8
        model = BiLSTMForSequenceClassification(BiLSTMCRFConfig(vocab_size=9))
        used = set()
        for lstm in (model.bilstm.layers[0].forward_lstm, model.bilstm.layers[0].backward_lstm):
            lstm.register_forward_hook(lambda *_: used.add(threading.get_ident()))
        with threads.training_threads(model):
            model(torch.tensor([[5, 6]]))
            print(json.dumps([torch.get_num_threads(), len(used) - 1]))
    """
    environment = os.environ | {"OMP_NUM_THREADS": omp}
    command = [sys.executable, "-c", dedent(code)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == expected
