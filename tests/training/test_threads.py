"""Tests of the threads of a training, against one thread."""

import json
import os
import subprocess
import sys
from textwrap import dedent

import pytest
import torch
from classifiers import new_classifier
from conftest import new_tagger

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
    return sum("run_directions" in vars(layer) for layer in model.modules() if isinstance(layer, BiLSTMLayer))


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


@pytest.mark.slow
@pytest.mark.parametrize(("omp", "expected"), [("1", [1, 0]), ("2", [1, 1])])
def test_the_setting_of_the_environment_is_kept(omp, expected):
    code = """
        import json, torch
        from bilstm_crf_hf import BiLSTMCRFConfig, BiLSTMForSequenceClassification
        from bilstm_crf_hf.training import threads
        threads.usable_cpus = lambda: 8
        model = BiLSTMForSequenceClassification(BiLSTMCRFConfig(vocab_size=9))
        with threads.training_threads(model):
            print(json.dumps([torch.get_num_threads(), int("run_directions" in vars(model.bilstm.layers[0]))]))
    """
    environment = os.environ | {"OMP_NUM_THREADS": omp}
    command = [sys.executable, "-c", dedent(code)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == expected
