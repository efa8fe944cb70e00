"""The fast paths of an accelerator against those of the CPU; without CUDA these tests are skipped.

The CPU's results are compared with brute force, pytorch-crf and seqeval in the other tests. GPU_TESTS_DEVICE=cpu runs
the tests on the CPU, in order to check the tests themselves.
"""

import copy
import os
from collections.abc import Iterator

import pytest
import torch
from conftest import LABELS, SENTENCES, new_tagger
from corpora import read_corpus
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from transformers import BertConfig, DataCollatorWithPadding, PreTrainedModel, TrainerCallback, set_seed

from bilstm_crf_hf import (
    BiLSTMCRFForTokenClassification,
    BiLSTMCRFTokenClassificationPipeline,
    BiLSTMForSequenceClassification,
    CharacterEncoderForTokenClassification,
    LinearChainCRF,
)
from bilstm_crf_hf.configuration_encoder import EncoderCRFConfig
from bilstm_crf_hf.data.collation import TaggingCollator
from bilstm_crf_hf.data.encoding import EncodedCorpus
from bilstm_crf_hf.evaluation.tasks import label_maps
from bilstm_crf_hf.modeling_bilstm_crf import sequence_tokens
from bilstm_crf_hf.modeling_character_encoder import CharacterEncoderConfig
from bilstm_crf_hf.modeling_encoder import EncoderCRFForTokenClassification
from bilstm_crf_hf.modeling_pretraining import BiLSTMForPreTraining
from bilstm_crf_hf.morphemes import NUM_CLUSTERS, NUM_PARTS_OF_SPEECH
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor
from bilstm_crf_hf.training.arguments import TaggerTrainingArguments
from bilstm_crf_hf.training.classification import ClassifierTrainer
from bilstm_crf_hf.training.cuda_graphs import GraphedSteps
from bilstm_crf_hf.training.distillation import DistillationTrainer, with_soft_labels
from bilstm_crf_hf.training.trainer import TaggerTrainer

DEVICE = torch.device(os.environ.get("GPU_TESTS_DEVICE", "cuda"))

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device"),
]

LENGTHS = (1, 2, 7, 33, 128, 512)
BATCH = 5
NO_DROPOUT = dict.fromkeys(("embedding_dropout", "locked_dropout", "ngram_dropout", "word_dropout"), 0.0)
SMALL_BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Run in full float32: cuDNN's LSTM would use TF32, whose operands have 10 bits."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    yield
    torch.backends.cudnn.allow_tf32 = allowed


def both(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return a module on the CPU and its copy on the device."""
    return module, copy.deepcopy(module).to(DEVICE)


def moved(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the device."""
    return {name: tensor.to(DEVICE) for name, tensor in values.items()}


# ---------------------------------------------------------------- the CRF


def scheme(num_tags: int) -> list[str]:
    """Return BIO labels, and with an even number one label outside of the scheme."""
    types = (num_tags - 1) // 2
    labels = [f"{prefix}-{i}" for i in range(types) for prefix in "BI"] + ["O"]
    return labels + ["free"] * (num_tags - len(labels))


def crf_case(num_tags: int, length: int, labels: list[str] | None = None, scale: float = 2.0):
    """Return a CRF on both devices, emissions (T, B, K), and the mask (T, B) of ragged sequences."""
    crf = LinearChainCRF(num_tags, labels=labels)
    nn.init.normal_(crf.transitions)
    emissions = scale * torch.randn(length, BATCH, num_tags)
    lengths = torch.randint(1, length + 1, (BATCH,))
    lengths[0] = length
    return *both(crf), emissions, torch.arange(length)[:, None] < lengths


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("num_tags", [13, 60])
@pytest.mark.parametrize("kind", ["known", "unknown", "constrained", "large"])
def test_likelihood_and_gradient_equal_the_cpus(num_tags, length, kind):
    labels = scheme(num_tags) if kind == "constrained" else None
    cpu, gpu, emissions, mask = crf_case(num_tags, length, labels, scale=300.0 if kind == "large" else 2.0)
    if kind == "constrained":  # gold paths are possible ones
        tags = cpu.viterbi(torch.randn_like(emissions), mask).clamp(min=0)
    else:
        tags = torch.randint(num_tags, (length, BATCH))
    if kind == "unknown":
        tags[torch.rand(length, BATCH) < 0.3] = -100
    gradients = []
    for crf, device in ((cpu, "cpu"), (gpu, DEVICE)):
        leaf = emissions.detach().to(device).requires_grad_()
        value = crf(leaf, tags.to(device), mask.to(device), reduction="none")
        (value * torch.arange(1, BATCH + 1, device=device)).sum().backward()
        gradients.append([value, leaf.grad, *(parameter.grad for parameter in crf.parameters())])
    for expected, found in zip(*gradients, strict=True):
        assert_close(found.cpu(), expected, **CLOSE)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("num_tags", [13, 60])
@pytest.mark.parametrize("constrained", [False, True])
def test_paths_and_marginals_equal_the_cpus(num_tags, length, constrained):
    cpu, gpu, emissions, mask = crf_case(num_tags, length, scheme(num_tags) if constrained else None)
    on_gpu = emissions.to(DEVICE), mask.to(DEVICE)
    assert_close(gpu.viterbi(*on_gpu).cpu(), cpu.viterbi(emissions, mask))
    assert gpu.decode(*on_gpu) == cpu.decode(emissions, mask)
    assert_close(gpu.marginals(*on_gpu).cpu(), cpu.marginals(emissions, mask), **CLOSE)
    for found, expected in zip(gpu.posterior(*on_gpu), cpu.posterior(emissions, mask), strict=True):
        # The logarithm of a probability near 1 is exact to an absolute error only.
        assert_close(found.cpu(), expected, **CLOSE)
    for found, expected in zip(gpu.nbest(*on_gpu, k=4), cpu.nbest(emissions, mask, k=4), strict=True):
        assert_close(found.cpu(), expected, **CLOSE)


# ---------------------------------------------------------------- models


@pytest.fixture(scope="module")
def corpus(tokenizer, tmp_path_factory) -> EncodedCorpus:
    path = tmp_path_factory.mktemp("data") / "sentences.txt"
    path.write_text("\n".join(SENTENCES * 8), encoding="utf-8")
    return EncodedCorpus(read_corpus(path), BiLSTMCRFProcessor(tokenizer), LABELS)


@pytest.fixture(scope="module")
def batch(corpus, tokenizer) -> dict[str, Tensor]:
    batch = dict(TaggingCollator(tokenizer)([corpus.inputs[i] for i in range(0, 64, 7)]))
    batch.pop("token_type_ids", None)
    return batch


def new_encoder_crf(tokenizer) -> EncoderCRFForTokenClassification:
    bert = BertConfig(vocab_size=len(tokenizer), **SMALL_BERT)
    config = EncoderCRFConfig(
        encoder_config=bert, num_lstm_layers=1, dropout=0.0, **sequence_tokens(tokenizer), **label_maps(LABELS)
    )
    return EncoderCRFForTokenClassification(config)


def new_character_encoder(tokenizer) -> CharacterEncoderForTokenClassification:
    bert = BertConfig(vocab_size=50, **SMALL_BERT)
    bilstm = new_tagger(tokenizer, **NO_DROPOUT).config
    config = CharacterEncoderConfig(encoder_config=bert, bilstm_config=bilstm, dropout=0.0, **label_maps(LABELS))
    return CharacterEncoderForTokenClassification(config)


def new_classifier(tokenizer, **config) -> BiLSTMForSequenceClassification:
    return BiLSTMForSequenceClassification.from_tokenizer(
        tokenizer, num_labels=3, embedding_size=16, hidden_size=24, ngram_buckets=256, **config
    )


def new_pretraining(tokenizer, **config) -> BiLSTMForPreTraining:
    options = {"embedding_size": 16, "hidden_size": 24, "ngram_buckets": 256, **label_maps(LABELS)}
    return BiLSTMForPreTraining.from_tokenizer(tokenizer, **options, **config)


def with_pieces(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the batch with random pieces beside its characters."""
    size, length = batch["input_ids"].shape
    mask = torch.arange(9) < torch.randint(1, 10, (size, 1))
    index = torch.randint(9, (size, length))
    return batch | {"piece_ids": torch.randint(1, 50, (size, 9)), "piece_mask": mask.long(), "piece_index": index}


CASES = {
    "tagger": (lambda tokenizer: new_tagger(tokenizer, **NO_DROPOUT), lambda batch: batch),
    "two layers": (lambda tokenizer: new_tagger(tokenizer, num_hidden_layers=2, **NO_DROPOUT), lambda batch: batch),
    "encoder": (new_encoder_crf, lambda batch: batch),
    "character encoder": (new_character_encoder, with_pieces),
    "classifier": (
        lambda tokenizer: new_classifier(tokenizer, **NO_DROPOUT),
        lambda batch: batch | {"labels": torch.arange(len(batch["labels"])) % 3},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_models_outputs_and_gradients_equal_the_cpus(name, tokenizer, batch):
    build, prepare = CASES[name]
    cpu, gpu = both(build(tokenizer))
    inputs = prepare(batch)
    with torch.no_grad():
        outputs = cpu.eval()(**inputs), gpu.eval()(**moved(inputs))
    for key, expected in outputs[0].items():
        assert_close(outputs[1][key].cpu(), expected, **CLOSE, msg=lambda text, key=key: f"{key}: {text}")
    losses = cpu.train()(**inputs)["loss"], gpu.train()(**moved(inputs))["loss"]
    for loss in losses:
        loss.backward()
    assert_close(losses[1].cpu(), losses[0], **CLOSE)
    assert_gradients_equal(gpu, cpu)


def assert_gradients_equal(gpu: nn.Module, cpu: nn.Module) -> None:
    for (name, found), expected in zip(gpu.named_parameters(), cpu.parameters(), strict=True):
        assert (found.grad is None) == (expected.grad is None), name
        if expected.grad is not None:
            tolerance = {"rtol": 1e-3, "atol": 1e-4 * expected.grad.abs().max().item() + 1e-8}
            assert_close(found.grad.cpu(), expected.grad, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def test_pretraining_asks_the_whole_vocabulary(tokenizer, batch, monkeypatch):
    """The cloze of accelerators has no counterpart on the CPU; the reference is a cross entropy over all tokens."""
    cpu, gpu = both(new_pretraining(tokenizer, **NO_DROPOUT).train())
    sequences = cpu.bilstm.sequences(batch["input_ids"], batch["attention_mask"])
    drawn = torch.arange(sequences.inside.numel())  # every token of the sequences once
    monkeypatch.setattr(torch, "randint", lambda *_, device=None, **__: drawn.to(device))
    output = gpu(**moved(batch))
    hidden = cpu.bilstm.encode(batch["input_ids"], sequences)
    states = cpu.context_states(hidden, sequences)[sequences.inside]
    logits = cpu.vocabulary(cpu.transform(states))
    cloze = cross_entropy(logits, sequences.pack(batch["input_ids"])[sequences.inside])
    tags = sequences.pack(batch["labels"])[sequences.inside]
    tag_loss = cross_entropy(cpu.tag_classifier(hidden[sequences.inside]), tags)
    if DEVICE.type != "cpu":
        assert_close(output.cloze_loss.cpu(), cloze, **CLOSE)
        (cloze + tag_loss).backward()
        output.loss.backward()
        assert_gradients_equal(gpu, cpu)
    assert_close(output.tag_loss.cpu(), tag_loss, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_autocast_stays_close_to_float32(name, dtype, tokenizer, batch):
    if DEVICE.type == "cpu" and dtype == torch.float16:
        pytest.skip("the CPU has no LSTM in float16")
    build, prepare = CASES[name]
    model, inputs = build(tokenizer).to(DEVICE).train(), moved(prepare(batch))
    expected = model(**inputs)["loss"]
    with torch.autocast(DEVICE.type, dtype):
        loss = model(**inputs)["loss"]
    assert loss.dtype == torch.float32
    assert_close(loss, expected, rtol=0.05, atol=0.02)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_pipeline_finds_the_cpus_entities(tokenizer, tagger, texts):
    options = {"tokenizer": tokenizer, "batch_size": 3}
    expected = BiLSTMCRFTokenClassificationPipeline(model=copy.deepcopy(tagger), device="cpu", **options)(texts)
    found = BiLSTMCRFTokenClassificationPipeline(model=copy.deepcopy(tagger), device=DEVICE, **options)(texts)
    assert sum(map(len, expected)) > 5
    for ours, theirs in zip(found, expected, strict=True):
        assert [{**entity, "score": None} for entity in ours] == [{**entity, "score": None} for entity in theirs]
        for a, b in zip(ours, theirs):
            assert a["score"] == pytest.approx(b["score"], abs=1e-4)


# ---------------------------------------------------------------- training


def new_trainer(model: PreTrainedModel, rows, collator, folder, callbacks=(), trainer_class=TaggerTrainer, **options):
    defaults = {
        "per_device_train_batch_size": 8,
        "disable_tqdm": True,
        "use_cpu": DEVICE.type == "cpu",
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "load_best_model_at_end": False,
    }
    arguments = TaggerTrainingArguments(str(folder), **defaults | options)
    return trainer_class(
        model, arguments, columns={}, data_collator=collator, train_dataset=rows, callbacks=list(callbacks)
    )


def new_reader(tokenizer) -> BiLSTMCRFForTokenClassification:
    """Return a tagger that reads the morphemes of [`with_morphemes`], half of which are known."""
    model = new_tagger(tokenizer, read_morphemes=True)
    model.bilstm.features.set_clusters({2**20 * i: i % NUM_CLUSTERS for i in range(0, len(tokenizer), 2)})
    return model


def with_morphemes(rows: Dataset) -> Dataset:
    """Return rows in which each token is a morpheme, without asking Kiwi."""
    return rows.map(lambda row: {"morpheme_ids": [2 * (NUM_PARTS_OF_SPEECH * 2**20 * i + 1) for i in row["input_ids"]]})


class RefuseToWait(TrainerCallback):
    """A callback under which any wait of the host for the device raises, from the end of one step to that of another.

    Before the first step, libraries are loaded, and that does wait.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last, self.steps = first, last, 0

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.steps += self.first <= state.global_step < self.last
        if DEVICE.type == "cuda":
            inside = self.first <= state.global_step < self.last
            torch.cuda.set_sync_debug_mode("error" if inside else "default")


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["tagger", "morphemes", "average", "tutorial", "classifier", "pretraining"])
def test_a_training_step_never_waits_for_the_device(name, precision, graphs, tokenizer, corpus, tmp_path):
    """The whole loop of `Trainer`: batches to the device, loss, gradient, clipping, update, average of the weights."""
    rows, collator = corpus.inputs, TaggingCollator(tokenizer)
    if name == "classifier":
        model = new_classifier(tokenizer)
        rows = rows.remove_columns("labels").map(lambda row, i: {"label": i % 3}, with_indices=True)
        collator = DataCollatorWithPadding(tokenizer)
    elif name == "pretraining":
        model = new_pretraining(tokenizer)
    elif name == "morphemes":
        model, rows = new_reader(tokenizer), with_morphemes(rows)
    else:
        model = new_tagger(tokenizer, **({"ngrams": [], "jamo_embedding_size": 0} if name == "tutorial" else {}))
    guard = RefuseToWait(16, 27)  # all shapes of batches have been met before
    options = {
        "max_steps": 28,
        "cuda_graphs": graphs,
        "bf16": precision == "bf16",
        "ema_decay": 0.9 if name == "average" else None,
    }
    try:
        output = new_trainer(model, rows, collator, tmp_path, [guard], **options).train()
    finally:
        if DEVICE.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert guard.steps == 11
    assert 0 < output.training_loss < 100


KINDS = ("plain", "morphemes", "accumulated", "average", "distilled", "classifier", "pretraining")


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_train_as_single_kernels_do(kind, tokenizer, corpus, tmp_path, monkeypatch):
    """With dropout: graphs draw the random numbers that single kernels draw."""
    rows, collator, options = corpus.inputs, TaggingCollator(tokenizer, pad_to_multiple_of=8), {"max_steps": 24}
    build, trainer_class = new_tagger, TaggerTrainer
    if kind == "accumulated":
        options |= {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 4}
    elif kind == "average":
        options |= {"ema_decay": 0.9}
    elif kind == "distilled":
        rows, trainer_class = with_soft_labels(rows, len(LABELS)), DistillationTrainer
        options |= {"remove_unused_columns": False}
    elif kind == "classifier":
        rows = rows.remove_columns("labels").map(lambda row, i: {"label": i % 3}, with_indices=True)
        build, trainer_class = new_classifier, ClassifierTrainer
        collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)
    elif kind == "pretraining":
        build = new_pretraining
    elif kind == "morphemes":
        build, rows = new_reader, with_morphemes(rows)
    weights, losses, captured = [], [], []
    capture = GraphedSteps._capture
    monkeypatch.setattr(GraphedSteps, "_capture", lambda *args: captured.append(1) or capture(*args))
    for graphs in (False, True):
        set_seed(0)
        model = build(tokenizer)
        trainer = new_trainer(
            model, rows, collator, tmp_path, trainer_class=trainer_class, cuda_graphs=graphs, **options
        )
        losses.append(trainer.train().training_loss)
        weights.append(model.state_dict())
    assert len(captured) > 1 or DEVICE.type == "cpu"
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    for name, expected in weights[0].items():
        assert_close(weights[1][name], expected, rtol=1e-3, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("graphs", [False, True])
def test_training_equals_that_of_the_cpu(graphs, tokenizer, corpus, tmp_path):
    """Also of a table large enough to be updated by rows, whose gradient is sparse on the CPU and dense elsewhere."""
    options = {"max_steps": 24, "weight_decay": 0.0, "cuda_graphs": graphs}
    weights = []
    for on_cpu in (True, DEVICE.type == "cpu"):
        set_seed(0)
        model = new_tagger(tokenizer, ngram_buckets=2**15, **NO_DROPOUT)
        collator = TaggingCollator(tokenizer)
        trainer = new_trainer(model, corpus.inputs, collator, tmp_path, use_cpu=on_cpu, **options)
        trainer.train()
        weights.append(model.cpu().state_dict())
    for name, expected in weights[0].items():
        assert_close(weights[1][name], expected, rtol=1e-2, atol=2e-3, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_training_in_half_precision_learns(precision, tokenizer, corpus, tmp_path):
    if precision == "fp16" and DEVICE.type == "cpu":
        pytest.skip("fp16 needs a GPU")
    options = {"max_steps": 60, "learning_rate": 1e-2, precision: True}
    trainer = new_trainer(new_tagger(tokenizer), corpus.inputs, TaggingCollator(tokenizer), tmp_path, **options)
    before = trainer.evaluate(corpus.inputs)["eval_loss"]
    trainer.train()
    assert trainer.evaluate(corpus.inputs)["eval_loss"] < 0.2 * before


def test_a_resumed_run_equals_an_undisturbed_one(tokenizer, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        options = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 11, "save_total_limit": None}
        weights = []
        for resume in (None, str(tmp_path / "checkpoint-11")):
            set_seed(0)
            model = new_tagger(tokenizer)
            trainer = new_trainer(model, corpus.inputs, TaggingCollator(tokenizer), tmp_path, **options)
            trainer.train(resume_from_checkpoint=resume)
            weights.append(model.state_dict())
    finally:
        torch.use_deterministic_algorithms(False)
    for name, expected in weights[0].items():
        assert_close(weights[1][name], expected, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs")
def test_two_gpus_share_a_batch(tokenizer, corpus, tmp_path):
    options = {"max_steps": 60, "learning_rate": 1e-2}
    trainer = new_trainer(new_tagger(tokenizer), corpus.inputs, TaggingCollator(tokenizer), tmp_path, **options)
    assert trainer.args.n_gpu > 1
    before = trainer.evaluate(corpus.inputs)["eval_loss"]
    trainer.train()
    assert trainer.evaluate(corpus.inputs)["eval_loss"] < 0.2 * before
