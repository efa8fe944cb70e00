import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import LABELS, SENTENCES, new_tagger
from corpora import read_corpus
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    BertConfig,
    BertForTokenClassification,
    DataCollatorForTokenClassification,
    DefaultDataCollator,
    TrainerCallback,
    default_data_collator,
    set_seed,
)

from bilstm_crf_hf import EncoderCRFForTokenClassification
from bilstm_crf_hf.data.encoding import EncodedCorpus, best_labels
from bilstm_crf_hf.evaluation.metrics import EntityScorer
from bilstm_crf_hf.evaluation.tasks import CLASSIFICATION, TAGGING, label_maps
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor
from bilstm_crf_hf.training import averaging
from bilstm_crf_hf.training.arguments import ModelArguments, TaggerTrainingArguments
from bilstm_crf_hf.training.cuda_graphs import GraphedSteps
from bilstm_crf_hf.training.loading import load_model, load_tokenizer
from bilstm_crf_hf.training.sampling import EpochLengthGroupedSampler
from bilstm_crf_hf.training.trainer import TaggerTrainer

RECIPE = Path(__file__).parents[2] / "recipes" / "ner.py"
LARGE_TABLE = {"ngram_buckets": 2**15, "ngram_embedding_size": 8}  # large enough to be updated by rows
NO_DROPOUT = dict.fromkeys(("embedding_dropout", "locked_dropout", "ngram_dropout", "word_dropout"), 0.0)


@pytest.fixture(scope="module")
def corpus(tokenizer, tmp_path_factory) -> EncodedCorpus:
    path = tmp_path_factory.mktemp("data") / "sentences.txt"
    path.write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    return EncodedCorpus(read_corpus(path), BiLSTMCRFProcessor(tokenizer), LABELS)


def small_bert(tokenizer) -> BertConfig:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertConfig(vocab_size=len(tokenizer), **shape)


def new_trainer(model, corpus, tokenizer, folder, **options) -> TaggerTrainer:
    arguments = TaggerTrainingArguments(
        **(
            {"output_dir": str(folder), "per_device_train_batch_size": 8, "num_train_epochs": 2, "disable_tqdm": True}
            | {"use_cpu": True, "save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}
            | options
        )
    )
    return TaggerTrainer(
        model,
        arguments,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        train_dataset=corpus.inputs,
        eval_dataset=corpus.inputs,
        compute_metrics=EntityScorer(corpus),
        preprocess_logits_for_metrics=best_labels,
        columns={"f1": "F1"},
    )


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same_weights(ours, theirs, **tolerance):
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter, theirs[name], msg=lambda m, name=name: f"{name}: {m}", **tolerance)


# ---------------------------------------------------------------- Trainer


def test_accumulated_batches_equal_one_large_batch(corpus, tokenizer, tmp_path):
    """Compare 4 x 8 with 32 sentences: the logged loss, and the weights after plain SGD, which show the gradient."""
    results = []
    for size, steps in ((32, 1), (8, 4)):
        model = new_tagger(tokenizer, **NO_DROPOUT)
        trainer = new_trainer(
            model, corpus, tokenizer, tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=steps,
            optim="sgd", learning_rate=0.1, num_train_epochs=3, lr_scheduler_type="constant", weight_decay=0.0,
        )  # fmt: skip
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        results.append((losses, weights_of(model)))
    (large, large_weights), (small, small_weights) = results
    assert len(large) == 3
    assert small == pytest.approx(large, rel=1e-5)
    assert_same_weights(small_weights, large_weights, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("collator", "expected"),
    [(DataCollatorForTokenClassification, True), (DefaultDataCollator, False), (default_data_collator, False)],
    ids=["pads to a multiple", "does not pad", "a function"],
)
def test_cuda_graphs_need_a_collator_that_pads_to_a_multiple(
    corpus, tokenizer, tmp_path, monkeypatch, collator, expected
):
    trainer = new_trainer(new_tagger(tokenizer), corpus, tokenizer, tmp_path)
    trainer.data_collator = collator if collator is default_data_collator else collator(tokenizer)
    assert not trainer._uses_graphs()
    monkeypatch.setattr(TaggerTrainingArguments, "device", torch.device("cuda"))
    monkeypatch.setattr(TaggerTrainingArguments, "n_gpu", 1)
    assert trainer._uses_graphs() == expected


def test_cuda_graphs_are_not_used_with_a_loss_function(corpus, tokenizer, tmp_path, monkeypatch):
    """`Trainer` passes a number of items to the steps of such a run, so that padding for graphs would be in vain."""
    trainer = new_trainer(new_tagger(tokenizer), corpus, tokenizer, tmp_path)
    monkeypatch.setattr(TaggerTrainingArguments, "device", torch.device("cuda"))
    monkeypatch.setattr(TaggerTrainingArguments, "n_gpu", 1)
    assert trainer._uses_graphs()
    trainer.compute_loss_func = lambda outputs, labels, num_items_in_batch=None: outputs["loss"]
    assert not trainer._uses_graphs()


def test_graphs_are_dropped_after_training(corpus, tokenizer, tmp_path):
    trainer = new_trainer(new_tagger(tokenizer), corpus, tokenizer, tmp_path, max_steps=1)
    seen = []

    class Graphs(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            trainer.graphs = "graphs of this training"
            seen.append(trainer.graphs)

    trainer.add_callback(Graphs())
    trainer.train()
    assert seen
    assert trainer.graphs is None


def test_all_graphs_share_the_gradients_of_the_parameters_of_all_batches(monkeypatch):
    """A batch of one shape reaches other parameters than a batch of another shape."""
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    model = torch.nn.ModuleDict({"2": torch.nn.Linear(2, 1), "3": torch.nn.Linear(3, 1)})

    def step(batch):
        loss = model[str(batch["x"].shape[1])](batch["x"]).sum()
        loss.backward()
        return loss.detach()

    steps = GraphedSteps(model, step)
    for width in (2, 3):
        steps({"x": torch.ones(1, width)})
        model.zero_grad()
    steps._share_gradients()
    assert [*steps.gradients] == [*model.parameters()]
    for parameter in model.parameters():
        assert parameter.grad is steps.gradients[parameter]
        assert not parameter.grad.any()


@pytest.mark.parametrize("optimizer", ["rows", "adafactor", "passed", "small tables"])
def test_dense_gradients_are_clipped_by_trainer(corpus, tokenizer, tmp_path, monkeypatch, optimizer):
    model = new_tagger(tokenizer, **({} if optimizer == "small tables" else LARGE_TABLE))
    options = {"optim": "adafactor"} if optimizer == "adafactor" else {}
    trainer = new_trainer(model, corpus, tokenizer, tmp_path, max_steps=2, max_grad_norm=0.5, **options)
    if optimizer == "passed":
        trainer.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    calls = []
    clip = trainer.accelerator.clip_grad_norm_
    monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", lambda *args: calls.append(1) or clip(*args))
    trainer.train()
    assert len(calls) == (0 if optimizer == "rows" else 2)
    assert trainer.has_sparse_gradients == (optimizer == "rows")


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [3, 4])  # in the middle of the first epoch of 4 steps, and at its end
def test_resumed_training_is_identical(corpus, tokenizer, tmp_path, checkpoint):
    """Compare the weights to the last bit, with dropout and length-grouped batches."""
    final = []
    for resume in (None, str(tmp_path / f"checkpoint-{checkpoint}")):
        set_seed(1)
        model = new_tagger(tokenizer, **LARGE_TABLE)
        trainer = new_trainer(
            model, corpus, tokenizer, tmp_path, save_strategy="steps", save_steps=1, save_total_limit=20
        )
        trainer.train(resume_from_checkpoint=resume)
        final.append(weights_of(trainer.model))
    assert trainer.state.global_step == 8
    assert model.bilstm.features.ngram_embeddings.sparse
    assert_same_weights(*final, atol=0, rtol=0)


def test_average_of_weights_is_what_is_evaluated_and_saved(corpus, tokenizer, tmp_path, monkeypatch):
    """Compare with the recurrence by hand over the weights after each step."""
    monkeypatch.setattr(averaging, "INTERVAL", 1)
    seen = []

    class Snapshots(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            seen.append(weights_of(model))

    model = new_tagger(tokenizer, **NO_DROPOUT)
    expected = weights_of(model)
    options = {"save_strategy": "epoch", "eval_strategy": "epoch", "save_total_limit": 5}
    trainer = new_trainer(model, corpus, tokenizer, tmp_path, ema_decay=0.5, **options)
    trainer.add_callback(Snapshots())
    trainer.train()
    for step, weights in enumerate(seen, 1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * weights[name] for name in expected}
    kept = weights_of(trainer.model)
    assert_same_weights(kept, expected, atol=1e-6, rtol=1e-5)
    assert_same_weights(kept, load_file(tmp_path / f"checkpoint-{len(seen)}" / "model.safetensors"), atol=0, rtol=0)
    saved = load_file(tmp_path / f"checkpoint-{len(seen)}" / averaging.WEIGHTS)
    assert_same_weights(seen[-1], saved, atol=0, rtol=0)
    logged = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry][-1]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(logged, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [3, 4])
def test_resumed_training_with_averages_is_identical(corpus, tokenizer, tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(averaging, "INTERVAL", 1)
    final = []
    for resume in (None, str(tmp_path / f"checkpoint-{checkpoint}")):
        set_seed(1)
        options = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 20, "ema_decay": 0.5}
        trainer = new_trainer(new_tagger(tokenizer), corpus, tokenizer, tmp_path, **options)
        trainer.train(resume_from_checkpoint=resume)
        final.append(weights_of(trainer.model))
    assert_same_weights(*final, atol=0, rtol=0)


def test_unchecked_files_are_not_uploaded(corpus, tokenizer, tmp_path):
    trainer = new_trainer(new_tagger(tokenizer), corpus, tokenizer, tmp_path)
    with pytest.raises(NotImplementedError, match=f"--push_to_hub, or run bilstm-crf publish {tmp_path} NAME/MODEL"):
        trainer.push_to_hub()


def test_training_under_bf16_autocast_learns(corpus, tokenizer, tmp_path):
    model = new_tagger(tokenizer, **NO_DROPOUT)
    trainer = new_trainer(model, corpus, tokenizer, tmp_path, bf16=True, num_train_epochs=8, learning_rate=1e-2)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before / 2
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_each_part_has_its_learning_rate(corpus, tokenizer, tmp_path):
    model = new_tagger(tokenizer, **LARGE_TABLE)
    trainer = new_trainer(model, corpus, tokenizer, tmp_path, crf_learning_rate=0.5, embedding_learning_rate=0.25)
    rates = {}
    for group in trainer.create_optimizer().param_groups:
        rates |= {id(parameter): (group["lr"], group["weight_decay"]) for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        expected = 0.5 if name.startswith("crf") else 0.25 if "embeddings" in name else 2e-3
        assert rates[id(parameter)][0] == expected, name
        assert (rates[id(parameter)][1] == 0) == ("bias" in name), name


def test_rows_take_larger_steps_where_only_those_looked_up_are_updated(corpus, tokenizer, tmp_path):
    model = new_tagger(tokenizer, **LARGE_TABLE)
    trainer = new_trainer(model, corpus, tokenizer, tmp_path, learning_rate=1e-3)
    rates = {id(p): group["lr"] for group in trainer.create_optimizer().param_groups for p in group["params"]}
    large = model.bilstm.features.ngram_embeddings.weight
    assert {name for name, p in model.named_parameters() if rates[id(p)] == 5e-3} == {
        name for name, p in model.named_parameters() if p is large
    }
    assert set(rates.values()) == {5e-3, 1e-3}


def test_encoder_trains_through_the_same_path(corpus, tokenizer, tmp_path):
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=len(LABELS),
    )  # fmt: skip
    trainer = new_trainer(BertForTokenClassification(config), corpus, tokenizer, tmp_path, eval_strategy="epoch")
    trainer.train()
    assert trainer.args.learning_rate == 5e-5
    assert {"eval_f1", "eval_token_f1", "eval_klue_char_macro_f1"} <= set(trainer.evaluate())


def test_epochs_are_reported_in_a_line_each(corpus, tokenizer, tmp_path, capsys):
    trainer = new_trainer(new_tagger(tokenizer), corpus, tokenizer, tmp_path, eval_strategy="epoch")
    trainer.train()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split()[:2] for line in lines] == [["epoch", "1/2"], ["epoch", "2/2"]]
    last = trainer.state.log_history[-2]
    assert f"F1 {last['eval_f1']:.4f}" in lines[1]
    assert len(trainer.epoch_report.seconds) == 2


def test_scores_before_the_first_step_and_within_epochs(corpus, tokenizer, tmp_path, capsys):
    options = {"eval_strategy": "steps", "eval_steps": 3, "eval_on_start": True}
    new_trainer(new_tagger(tokenizer), corpus, tokenizer, tmp_path, **options).train()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["0.75/2", "1.5/2", "2/2"]


def test_sampler_draws_from_seed_and_epoch_alone():
    lengths = [5, 9, 1, 7, 3, 8, 2, 6, 4, 10] * 20
    sampler = EpochLengthGroupedSampler(4, lengths, seed=1)
    first = list(sampler)
    torch.rand(100)
    assert list(sampler) == first
    assert sorted(first) == list(range(len(lengths)))
    sampler.set_epoch(1)
    assert list(sampler) != first
    grouped = [[lengths[i] for i in first[at : at + 4]] for at in range(0, len(first), 4)]
    assert sum(max(group) - min(group) for group in grouped) < len(grouped)


# ---------------------------------------------------------------- models and tokenizers by name


def test_trained_model_keeps_its_labels(tagger, tokenizer, tmp_path):
    tagger.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    arguments = ModelArguments(model_name_or_path=str(tmp_path))
    model = load_model(arguments, load_tokenizer(arguments, []), ["O", "B-LC", "I-LC"])
    assert [model.config.id2label[i] for i in range(7)] == LABELS
    named = {"id2label": {0: "O", 1: "I-PS"}, "label2id": {"O": 0, "I-PS": 1}}  # which has no B-
    new_tagger(tokenizer, **named).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no label B-PS \(it has O, I-PS\): .* or give it a new head"):
        load_model(arguments, tokenizer, ["B-PS", "I-PS", "O"])


def test_a_body_gets_a_head_for_the_labels_of_the_task(tagger, tokenizer, tmp_path):
    """Load the body of a trained tagger, which was saved without its head."""
    tagger.save_pretrained(tmp_path / "tagger")
    AutoModel.from_pretrained(tmp_path / "tagger").save_pretrained(tmp_path / "body")
    model = load_model(ModelArguments(model_name_or_path=str(tmp_path / "body")), tokenizer, ["B-OG", "I-OG", "O"])
    assert model.config.id2label == {0: "B-OG", 1: "I-OG", 2: "O"}
    assert_same_weights(weights_of(model.bilstm), weights_of(tagger.bilstm), atol=0, rtol=0)


@pytest.mark.parametrize(("task", "labels"), [(TAGGING, LABELS), (CLASSIFICATION, ["긍정", "부정"])])
def test_a_trained_model_gets_a_new_head_for_any_labels(task, labels, tokenizer, tmp_path):
    """Also for its own ones: its body stays as it is, and its file is not needed any more."""
    trained = new_tagger(tokenizer, temperature=1.5)
    trained.save_pretrained(tmp_path)
    model = load_model(ModelArguments(model_name_or_path=str(tmp_path), head="new"), tokenizer, labels, task)
    assert model.config.id2label == dict(enumerate(labels))
    assert model.config.temperature == 1
    assert_same_weights(weights_of(model.bilstm), weights_of(trained.bilstm), atol=0, rtol=0)
    assert model.classifier.out_features == len(labels)
    assert not model.classifier.weight[:2].equal(trained.classifier.weight[:2])
    shutil.rmtree(tmp_path)
    model.save_pretrained(tmp_path)
    assert_same_weights(weights_of(type(model).from_pretrained(tmp_path)), weights_of(model), atol=0, rtol=0)


def test_a_trained_encoder_gets_a_new_head(tokenizer, tmp_path):
    """One of transformers; the heads of this package are put on the encoder itself."""
    trained = BertForTokenClassification(small_bert(tokenizer))
    trained.save_pretrained(tmp_path / "bert")
    model = load_model(ModelArguments(model_name_or_path=str(tmp_path / "bert"), head="new"), tokenizer, LABELS)
    assert_same_weights(weights_of(model.bert), weights_of(trained.bert), atol=0, rtol=0)
    assert model.classifier.out_features == len(LABELS)
    crf = EncoderCRFForTokenClassification.from_encoder(tmp_path / "bert", tokenizer, **label_maps(LABELS))
    crf.save_pretrained(tmp_path / "crf")
    arguments = ModelArguments(model_name_or_path=str(tmp_path / "crf"), head="new")
    with pytest.raises(ValueError, match="cannot get a new head: start from its encoder, with --head crf or char"):
        load_model(arguments, tokenizer, LABELS)


def test_trained_model_goes_on_with_other_dropouts(tagger, tokenizer, tmp_path):
    tagger.save_pretrained(tmp_path)
    overrides = '{"locked_dropout": 0.25, "word_dropout": 0.0}'
    model = load_model(ModelArguments(model_name_or_path=str(tmp_path), config_overrides=overrides), tokenizer, LABELS)
    assert (model.config.locked_dropout, model.config.word_dropout) == (0.25, 0.0)
    assert model.bilstm.locked_dropout.p == 0.25
    assert_same_weights(weights_of(model), weights_of(tagger), atol=0, rtol=0)
    with pytest.raises(ValueError, match="BiLSTMCRFConfig has no field dropout"):
        load_model(
            ModelArguments(model_name_or_path=str(tmp_path), config_overrides={"dropout": 0.1}), tokenizer, LABELS
        )


def test_a_model_that_is_trained_further_loses_its_temperature(tokenizer, tmp_path):
    """Keep one that the arguments give."""
    new_tagger(tokenizer, temperature=1.5).save_pretrained(tmp_path)
    found = [
        load_model(ModelArguments(model_name_or_path=str(tmp_path), config_overrides=overrides), tokenizer, LABELS)
        for overrides in (None, {"temperature": 2.5})
    ]
    assert [model.config.temperature for model in found] == [1.0, 2.5]


def test_encoder_without_a_head_gets_one(tokenizer, tmp_path):
    BertForTokenClassification(small_bert(tokenizer)).bert.save_pretrained(tmp_path)
    model = load_model(ModelArguments(model_name_or_path=str(tmp_path)), tokenizer, LABELS)
    assert model.classifier.out_features == len(LABELS)
    assert model.config.id2label == dict(enumerate(LABELS))


# ---------------------------------------------------------------- the recipe as a process


def run_recipe(folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> tuple[dict, str]:
    command = [*(launcher or (sys.executable,)), str(RECIPE), "--output_dir", "run", "--use_cpu", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads((folder / "run" / "all_results.json").read_text()), result.stdout


SMALL = (
    "--config_overrides",
    json.dumps(
        {"embedding_size": 16, "hidden_size": 16, "ngram_buckets": 256, "ngram_embedding_size": 8, **NO_DROPOUT}
    ),
    *("--max_train_samples", "64", "--max_eval_samples", "16", "--num_train_epochs", "2", "--learning_rate", "0.01"),
)


@pytest.mark.slow
def test_recipe_leaves_all_that_it_promises(tmp_path):
    results, printed = run_recipe(tmp_path, *SMALL, "--num_examples", "2")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "modeling_bilstm_crf.py"} <= files
    assert {"pipeline_bilstm_crf.py", "all_results.json", "trainer_state.json", "training.png"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth"))]
    assert (results["train_sentences"], results["validation_sentences"], results["epochs"]) == (64, 16, 2)
    assert f"best F1 {results['best_f1']:.4f}" in printed
    assert printed.count("epoch 1/2") == 1
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    scores = [entry["eval_f1"] for entry in state["log_history"] if "eval_f1" in entry]
    assert results["best_f1"] == max(scores)
    assert results["mean_f1"] == pytest.approx(sum(scores) / 2)
    run = json.loads((tmp_path / "run" / "training_run.json").read_text(encoding="utf-8"))
    assert (run["arguments"]["max_train_samples"], run["hyperparameters"]["learning_rate"]) == (64, 0.01)
    assert run["hyperparameters"]["optimizer"].startswith("RowAdamW")
    assert run["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]  # either may name the build


@pytest.mark.slow
def test_two_processes_train_to_the_same_loss(tmp_path):
    """Compare 2 processes x 8 sentences (gloo) with 1 x 16, without dropout."""
    launch = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU", "use_cpu": True}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(launch | {"num_processes": 2, "num_machines": 1}))
    launcher = (sys.executable, "-m", "accelerate.commands.launch", "--config_file", "two.yaml")
    runs = []
    for size, command in ((16, ()), (8, launcher)):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / "two.yaml").write_text((tmp_path / "two.yaml").read_text())
        results, _ = run_recipe(folder, *SMALL, "--per_device_train_batch_size", str(size), launcher=command)
        state = json.loads((folder / "run" / "trainer_state.json").read_text())
        assert state["global_step"] == 8
        runs.append(([e["loss"] for e in state["log_history"] if "loss" in e], results["eval_loss"]))
    assert runs[1][0] == pytest.approx(runs[0][0], rel=1e-4)
    assert runs[1][1] == pytest.approx(runs[0][1], rel=1e-4)
