"""The benchmark: what its processes may use, its arithmetic, and its tables. Nothing here depends on time."""

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import SENTENCES, new_tagger
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForTokenClassification, BertConfig, ElectraConfig

from bilstm_crf_hf.commands import benchmark, benchmark_inference, benchmark_limit, benchmark_models, benchmark_training
from bilstm_crf_hf.commands.benchmark_inference import measure, table_rows
from bilstm_crf_hf.commands.benchmark_limit import Peak, Product, flop_of_a_token, matrix_products, peaks
from bilstm_crf_hf.commands.benchmark_models import Candidate, evenly, export_encoder, load_onnx_encoder
from bilstm_crf_hf.commands.benchmark_processes import Condition, conditions_on, spinning, usable_cores, workers

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}

with_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes have no affinity here")


# Processes


def facts(loaded: list, more: int) -> tuple:
    """Return what a process of `workers` may use; it runs there."""
    loaded.append(more)
    return os.getpid(), os.sched_getaffinity(0), torch.get_num_threads(), list(loaded)


@with_affinity
@pytest.mark.slow
def test_a_worker_has_the_cores_and_the_threads_of_its_condition(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))  # the processes import `facts`
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before, cores = os.sched_getaffinity(0), usable_cores()
    conditions = {
        "one": Condition(cores[-1:], None, ()),
        "all": Condition(cores, None, ()),
        "one again": Condition(cores[-1:], None, ()),
        "one thread": Condition(cores, 1, ()),
    }
    with workers(list, conditions) as run:
        assert os.sched_getaffinity(0) == before
        assert os.environ["OMP_NUM_THREADS"] == "7"
        found = {name: run[name](facts, i) for i, name in enumerate(conditions)}
        with pytest.raises(ZeroDivisionError):
            run["one"](divide)
    assert [found[name][1:3] for name in conditions] == [
        *(({cores[-1]}, 1), (set(cores), len(cores)), ({cores[-1]}, 1), (set(cores), 1)),
    ]
    assert found["one"][0] == found["one again"][0]  # a process for equal cores and threads, which keeps what it loaded
    assert found["one again"][3] == [0, 2]
    assert len({pid for pid, *_ in found.values()} | {os.getpid()}) == 4
    assert not any(psutil.pid_exists(pid) for pid, *_ in found.values())


def divide(loaded: list) -> float:
    return 1 / 0


@with_affinity
def test_spinning_processes_have_their_cores_and_end_with_the_context():
    cores = usable_cores()
    with pytest.raises(KeyError), spinning([cores, cores[-1:]]) as pids:  # noqa: PT012
        assert [psutil.Process(pid).cpu_affinity() for pid in pids] == [list(cores), list(cores[-1:])]
        raise KeyError
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.slow
def test_all_processes_end_when_the_benchmark_is_killed():
    program = (
        "import time; from bilstm_crf_hf.commands.benchmark_processes import *; cores = usable_cores()\n"
        "with workers(list, {'': Condition(cores, None, ())}) as run, spinning([cores]):\n"
        "    print(run[''](len), flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "0\n"
        children = psutil.Process(process.pid).children()
        assert len(children) >= 2
        process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_the_conditions_of_two_cores():
    conditions = conditions_on((3, 5))
    assert [len(each.spinning) for each in conditions.values()] == [0, 0, 1, 4, 4]
    assert [each.cores for each in conditions.values()] == [(3,), (3, 5), (3, 5), (3, 5), (3, 5)]
    assert [each.threads for each in conditions.values()] == [None, None, None, None, 1]
    assert {core for each in conditions.values() for cores in each.spinning for core in cores} == {3, 5}


# The arithmetic limit


def test_the_operations_of_a_token_are_those_that_torch_counts(tokenizer):
    model, ids = new_tagger(tokenizer), torch.randint(5, len(tokenizer), (3, 7))
    with FlopCounterMode(display=False) as counter, torch.backends.mkldnn.flags(enabled=False), torch.no_grad():
        model.emissions(ids, torch.ones_like(ids))
    assert counter.get_total_flops() == 3 * 7 * flop_of_a_token(model)


def test_the_operations_of_matrix_products():
    size, found = 16, {}
    for product in matrix_products(size):
        with torch.inference_mode():
            product.run()
        found.setdefault(product.numbers, []).append((product.way, product.flop))
    cell = nn.LSTMCell(size, size // 4)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        torch.ones(size, size) @ torch.ones(size, size)
        square = counter.get_total_flops()
        cell(torch.ones(size, size))  # as many timesteps as there are rows in the matrices
    floating = [("torch.matmul", square), ("nn.LSTM", counter.get_total_flops() - square)]
    own = [("oneDNN's Linear", square)] * torch.backends.mkldnn.is_available()
    assert found == {"float32": own + floating, "bfloat16": floating, "int8": [("torch._int_mm", square)]}


def test_the_peak_is_that_of_the_fastest_way(monkeypatch):
    ways = [("a", "slow", 4e9, 2), ("a", "fast", 3e9, 1), ("a", "slower", 1e9, 1), ("b", "only", 1e9, 4)]
    products = [Product(numbers, way, lambda: None, flop) for numbers, way, flop, _ in ways]
    monkeypatch.setattr(benchmark_limit, "matrix_products", lambda size: products)
    monkeypatch.setattr(benchmark_limit, "medians", lambda runs, rounds: dict(zip(runs, [way[3] for way in ways])))
    assert peaks(1) == {"a": Peak(3e9, "fast"), "b": Peak(0.25e9, "only")}


# The table


CONDITIONS = {
    "1 core": Condition((0,), None, ()),
    "2 cores": Condition((0, 1), None, ()),
    "1 beside": Condition((0, 1), None, ((1,),)),
    "4 beside": Condition((0, 1), None, ((0, 1),) * 4),
}


def test_candidates_take_turns_and_peers_are_measured_on_idle_cores_only(monkeypatch):
    busy, calls, seconds = [], [], iter(range(1, 100))

    @contextmanager
    def recorded(processes):
        busy.append(len(processes))
        yield
        busy.pop()

    def run(condition: str, function, name: str, *more):
        if function.__name__ == "load_tagger":
            return None
        calls.append((condition, function.__name__, name, *more, sum(busy)))
        return [0.25, 0.5, 4.0] if function.__name__ == "seconds_for_one" else next(seconds)

    monkeypatch.setattr(benchmark_inference, "spinning", recorded)
    candidates = {"own": Candidate(list, [], "float32"), "peer": Candidate(list, [])}
    rates, single = measure(candidates, CONDITIONS, {name: partial(run, name) for name in CONDITIONS}, 3)
    one_round = [
        ("1 core", "seconds_a_sentence", "own", 1, None, 0),
        ("1 core", "seconds_a_sentence", "peer", 1, None, 0),
        ("2 cores", "seconds_a_sentence", "own", 1, None, 0),
        ("2 cores", "seconds_a_sentence", "peer", 1, None, 0),
        ("1 beside", "seconds_a_sentence", "own", 1, None, 1),
        ("4 beside", "seconds_a_sentence", "own", 2, None, 4),
        ("2 cores", "seconds_for_one", "own", 0),
        ("2 cores", "seconds_for_one", "peer", 0),
    ]
    assert calls == 3 * one_round
    # Each round has 6 measurements, of 1, 2, ... seconds: the median is that of the second round.
    assert rates == {
        "1 core": {"own": 1 / 7, "peer": 1 / 8},
        "2 cores": {"own": 1 / 9, "peer": 1 / 10},
        "1 beside": {"own": 1 / 11},
        "4 beside": {"own": 1 / 12},
    }
    assert single == {"own": 0.5, "peer": 0.5}


def test_the_shares_in_the_table():
    candidates = {"own": Candidate(list, [""] * 8, "float32"), "peer": Candidate(list, [""] * 4)}
    rates = {"1 core": {"own": 100.0, "peer": 10.0}, "2 cores": {"own": 150.0, "peer": 20.0}, "1 beside": {"own": 90.0}}
    own, peer, limit = table_rows(
        candidates, rates, {"own": 0.002, "peer": 0.03}, {"float32": Peak(5e11, "a product")}, 50_000_000, 20.0
    )
    assert own == {
        "what": "own", "sentences": 8, "1 core": 100.0, "2 cores": 150.0, "1 beside": 90.0, "ms for one": 2.0,
        "% of idle beside one": 60.0, "% of the limit": 20.0,  # of 500 sentences a second
    }  # fmt: skip
    assert peer == {
        "what": "peer", "sentences": 4, "1 core": 10.0, "2 cores": 20.0, "1 beside": None, "ms for one": 30.0,
        "% of idle beside one": None, "% of the limit": None,
    }  # fmt: skip
    assert limit.pop("what") == "limit in float32: 500 GFLOP/s by a product, 50.00 MFLOP for each of 20.0 characters"
    assert {name: value for name, value in limit.items() if value} == {"1 core": 500.0, "% of the limit": 100.0}


def test_off_the_cpu_the_table_has_one_rate():
    candidates = {"own": Candidate(list, [""] * 8, "bfloat16"), "peer": Candidate(list, [""] * 4)}
    rates = {"sentences a second": {"own": 100.0, "peer": 10.0}}
    assert list(table_rows(candidates, rates, {"own": 0.002, "peer": 0.03}, {}, 1, 1.0)) == [
        {"what": "own", "sentences": 8, "sentences a second": 100.0, "ms for one": 2.0},
        {"what": "peer", "sentences": 4, "sentences a second": 10.0, "ms for one": 30.0},
    ]


def test_training_is_timed_under_all_conditions_after_a_warm_up(monkeypatch):
    calls, seconds = [], iter(range(100))

    @contextmanager
    def recorded(processes):
        calls.append(len(processes))
        yield

    @contextmanager
    def started(load, conditions):
        yield dict.fromkeys(conditions, lambda function: next(seconds))

    monkeypatch.setattr(benchmark_training, "spinning", recorded)
    monkeypatch.setattr(benchmark_training, "workers", started)
    monkeypatch.setattr(benchmark_training, "usable_cores", lambda: (0, 1))
    # The seconds are 0 to 4 in the warm-up, 5 to 9 in the first round, 10 to 14 in the second, ...
    assert list(benchmark_training.seconds_by_condition(list, 3).values()) == [10, 11, 12, 13, 14]
    assert calls == 3 * [0, 0, 1, 4, 4]


@pytest.mark.parametrize(("count", "expected"), [(64, 64), (65, 96), (1, 32), (10_000, 1000)])
def test_slow_peers_tag_sentences_of_all_lengths(count, expected):
    lengths = np.random.default_rng(0).permutation(1000)
    chosen = evenly(["x" * n for n in lengths], count)
    assert len(chosen) == expected
    assert len(set(chosen)) == expected
    assert abs(np.mean([len(text) for text in chosen]) - 499.5) < 16
    starts = {len(chosen[i]) for i in range(0, expected, 32)}
    assert all(start % 32 == 0 for start in starts)  # whole batches of all sentences sorted by length


@pytest.mark.slow
@pytest.mark.parametrize("config_class", [BertConfig, ElectraConfig])
def test_an_exported_encoder_reads_any_batch(config_class, tokenizer, texts, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    config = config_class(vocab_size=len(tokenizer), num_labels=5, **SMALL)
    torch.manual_seed(0)
    path = export_encoder(config, tmp_path / "model.onnx")
    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_config(config).eval()
    batch = tokenizer(texts, padding=True, return_token_type_ids=False, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**batch).logits.numpy()
    inputs = {name: values.numpy() for name, values in batch.items()}
    (plain,) = onnxruntime.InferenceSession(tmp_path / "model.float32.onnx").run(None, inputs)
    (quantised,) = onnxruntime.InferenceSession(path).run(None, inputs)
    np.testing.assert_allclose(plain, expected, atol=1e-5)
    np.testing.assert_allclose(quantised, expected, atol=0.1)
    assert np.abs(quantised - expected).max() > 0
    load_onnx_encoder(path, tokenizer)([*texts, "", "가"])


@pytest.fixture
def _level():
    """Restore the level of the root logger, which the command raises."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)


@with_affinity
@pytest.mark.slow
@pytest.mark.usefixtures("_level")
def test_the_table_of_inference(write, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    path = write("sentences.txt", "\n".join(SENTENCES * 8))
    monkeypatch.setattr(benchmark_inference, "TRAINING_STEPS", 2)
    monkeypatch.setattr(benchmark_models, "BertConfig", partial(BertConfig, **SMALL))
    monkeypatch.setattr(benchmark_models, "KOELECTRA_SMALL", {"vocab_size": 999, "embedding_size": 16, **SMALL})
    monkeypatch.setattr(benchmark_models, "find_spec", lambda name: None)  # without the other libraries
    output = tmp_path / "out"
    argv = ["--sections", "inference", "--peers", "true", "--rounds", "1", "--output_dir", str(output)]
    benchmark.main([*argv, "--train_file", str(path), "--validation_file", str(path)])
    rows = json.loads((output / "benchmark.json").read_text())["inference"]
    named = {row["what"]: row for row in rows if not row["what"].startswith("limit")}
    own = [name for name in named if name.startswith(("pipeline", "ONNX"))]
    assert own == ["pipeline", "pipeline, morphemes", "pipeline, bfloat16", "ONNX", "ONNX, int8"]
    assert named.keys() - own == {"BERT-base", "KoELECTRA-small, ONNX, int8", "BERT-base, ONNX, int8"}
    core, every, busy, *crowded = conditions_on(usable_cores())
    for name, row in named.items():
        assert row[core] > 0
        assert row[every] > 0
        assert row["ms for one"] > 0
        assert all((row[key] is None) != (name in own) for key in (busy, *crowded, "% of the limit"))
    limits = [row[core] for row in rows if row["what"].startswith("limit")]
    assert [row["what"].split()[2] for row in rows[-3:]] == ["float32:", "bfloat16:", "int8:"]
    for name, limit in zip(("pipeline", "pipeline, bfloat16", "ONNX, int8"), limits, strict=True):
        assert named[name]["% of the limit"] == pytest.approx(100 * named[name][core] / limit)
    assert len((output / "benchmark.md").read_text().splitlines()) == 4 + len(rows) + 1
