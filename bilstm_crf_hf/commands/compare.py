"""Compare systems: python recipes/compare.py A.yaml B.yaml outputs/finished [--seeds 42 43 44] [-- --argument value]

A YAML file is trained first, once a seed, by the recipe that --recipe names; what follows `--` goes to the recipe. A
folder is that of a finished run, and is read as it is. Folders whose names differ in `-seed42` only are runs of one
system. Training that is finished is not repeated, so an interrupted comparison goes on when started again.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from transformers import Pipeline, pipeline

from ..evaluation.comparison import NER, Run, Speed, System, group_runs, read_run
from ..evaluation.comparison_page import write_report
from ..utils.environment import hardware, versions
from . import launcher

SETTINGS = "comparison_run.json"
"""What a run in OUTPUT_DIR/runs was started with."""

ROUNDS = 3
BATCH_SIZE = 32
YAML = (".yaml", ".yml")


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and those of the recipe behind `--`."""
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="+", type=Path, help="YAML files to train, folders of finished runs")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/comparison"))
    parser.add_argument("--recipe", choices=("ner", "sequence_classification"), default="ner")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="of the runs of each YAML file")
    parser.add_argument("--latency_sentences", type=int, default=200, help="sentences that speed is measured on")
    parser.add_argument(
        "--sentences",
        type=int,
        default=20,
        help="that differ between two systems, to show of each two; 0 for a report that quotes nothing of the data",
    )
    arguments = parser.parse_args(argv[:cut])
    stems = [path.stem for path in arguments.systems if path.suffix in YAML]
    if repeated := {stem for stem in stems if stems.count(stem) > 1}:
        parser.error(f"several YAML files are called {', '.join(sorted(repeated))}: systems are told apart by name")
    for path in arguments.systems:
        if not (path.is_file() if path.suffix in YAML else path.is_dir()):
            parser.error(f"{path}: neither a YAML file nor the folder of a finished run")
    if arguments.latency_sentences < 1:
        parser.error("--latency_sentences: at least one is needed")
    return arguments, argv[cut + 1 :]


# Training


def train(folder: Path, config: Path, recipe: str, seed: int, options: list[str], recipes: Path | None = None) -> None:
    """Trains a system into `folder`, unless that holds the finished run already.

    An interrupted run is started anew: the times of a resumed one would not compare.

    Raises:
        ValueError: the folder holds a run of other settings, or something else.
        RuntimeError: the recipe failed.
    """
    settings = {"recipe": recipe, "config": config.read_text(encoding="utf-8"), "options": options, "seed": seed}
    finished, own = (folder / "all_results.json").is_file(), folder / SETTINGS
    if own.is_file() and json.loads(own.read_text(encoding="utf-8")) != settings:
        raise ValueError(
            f"{folder} was trained with other settings ({own} has them): delete it, or name another --output_dir"
        )
    if finished:
        print(f"{folder}: finished already")
        return
    if folder.exists() and not own.is_file():
        raise ValueError(f"{folder} is no finished run, and not begun by this recipe: move it away")
    begun = folder.with_name(f"{folder.name}.begun")
    for old in (folder, begun):
        if old.exists():
            shutil.rmtree(old)
    begun.mkdir(parents=True)
    Path(begun, SETTINGS).write_text(json.dumps(settings, ensure_ascii=False, indent=2), encoding="utf-8")
    begun.rename(folder)  # so that the folder has its settings from the start
    command = [sys.executable, *launcher(recipe, recipes), str(config), *options]
    command += ["--seed", str(seed), "--output_dir", str(folder)]
    print(" ".join(command), flush=True)
    status = subprocess.run(command, check=False).returncode
    if status or not (folder / "all_results.json").is_file():
        raise RuntimeError(f"training {config} with seed {seed} failed (exit status {status}); its messages are above")


def runs_of(path: Path, arguments: argparse.Namespace, options: list[str], recipes: Path | None) -> list[Run]:
    """The runs that an argument names, trained if need be."""
    if path.suffix not in YAML:
        return [read_run(path)]
    folders = {seed: arguments.output_dir / "runs" / f"{path.stem}-seed{seed}" for seed in arguments.seeds}
    for seed, folder in folders.items():
        train(folder, path, arguments.recipe, seed, options, recipes)
    return [read_run(folder) for folder in folders.values()]


# Speed


def measure_speeds(systems: list[System], sentences: int) -> dict[str, Speed]:
    """Speed of each system's best run. Systems take turns, so that a busy moment of the machine meets all of them."""
    texts = systems[0].best.texts[:sentences]
    taggers = {system.name: load_pipeline(system.best) for system in systems}
    single: dict[str, list[float]] = {name: [] for name in taggers}
    batches: dict[str, list[float]] = {name: [] for name in taggers}
    for tagger in taggers.values():
        tagger(texts[:BATCH_SIZE], batch_size=BATCH_SIZE)
    for _ in range(ROUNDS):
        for name, tagger in taggers.items():
            single[name] += [seconds_of(tagger, text) for text in texts]
            batches[name].append(seconds_of(tagger, texts))
    return {name: Speed(1e3 * median(single[name]), len(texts) / median(batches[name])) for name in taggers}


def load_pipeline(run: Run) -> Pipeline:
    options = {"aggregation_strategy": "simple"} if run.task is NER else {"truncation": True}
    folder = str(run.folder)
    return pipeline(run.task.pipeline, folder, trust_remote_code=True, device="cpu", **options)


def seconds_of(tagger: Pipeline, texts: str | list[str]) -> float:
    began = time.perf_counter()
    tagger(texts, batch_size=1 if isinstance(texts, str) else BATCH_SIZE)
    return time.perf_counter() - began


def conditions_of(sentences: int) -> dict[str, Any]:
    return {
        "one sentence": f"median of {sentences} sentences, one at a time, {ROUNDS} times",
        "sentences a second": f"the same in batches of {BATCH_SIZE}, median of {ROUNDS} times, systems in turn",
        "CPU": hardware(),
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    arguments, options = parse(argv)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    # Folders come first, and all is compared after each: what does not fit shows before the next hours of training.
    paths = sorted(arguments.systems, key=lambda path: path.suffix in YAML)
    runs: list[Run] = []
    for path in paths:
        runs += runs_of(path, arguments, options, recipes)
        systems = group_runs(runs)
    count = min(arguments.latency_sentences, len(systems[0].best.texts))
    print(f"measuring speed on {count} sentences ...", flush=True)
    speeds = measure_speeds(systems, count)
    write_report(arguments.output_dir, systems, speeds, conditions_of(count), arguments.sentences)
    for system in systems:
        speed = speeds[system.name].sentences_per_second
        print(f"{system.name}: {system.best.task.score_name} {system.score:.4f}, {speed:.0f} sentences a second")
    print(f"saved in {arguments.output_dir}: report.html, report.md, tables as CSV, pictures")
