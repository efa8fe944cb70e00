"""Compare systems: python recipes/compare.py A.yaml B.yaml outputs/finished [--seeds 42 43 44] [-- --argument value]

Each YAML file is trained once per seed by the recipe that --recipe names, with the arguments after `--`. A folder
contains a finished run. Runs whose folders differ in `-seed42` only belong to one system. Finished training is not
repeated, so an interrupted comparison continues when it is started again.
"""

import argparse
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

from transformers import pipeline

from ..evaluation.comparison import Speed, System, group_runs
from ..evaluation.comparison_page import write_report
from ..evaluation.runs import COMPARISON_RUN, RESULTS, Run, read_run
from ..evaluation.tasks import TAGGING
from ..utils.environment import hardware, versions
from ..utils.files import write_folder_atomically
from ..utils.timing import seconds_of
from . import launcher

ROUNDS = 3
BATCH_SIZE = 32
YAML = (".yaml", ".yml")


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the arguments of the comparison, and those of the recipe after `--`."""
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="+", type=Path, help="YAML files to train, folders of finished runs")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/comparison"))
    parser.add_argument("--recipe", choices=("ner", "sequence_classification"), default="ner")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="seeds of the runs of each YAML file")
    parser.add_argument("--latency_sentences", type=int, default=200, help="sentences to measure the speed on")
    parser.add_argument(
        "--sentences", type=int, default=20, help="sentences to quote on which two systems differ; 0 to quote no data"
    )
    arguments = parser.parse_args(argv[:cut])
    stems = [path.stem for path in arguments.systems if path.suffix in YAML]
    if repeated := {stem for stem in stems if stems.count(stem) > 1}:
        parser.error(f"several YAML files have the name {', '.join(sorted(repeated))}: rename them")
    for path in arguments.systems:
        if not (path.is_file() if path.suffix in YAML else path.is_dir()):
            parser.error(f"{path}: neither a YAML file nor the folder of a finished run")
    if arguments.latency_sentences < 1:
        parser.error("--latency_sentences must be at least 1")
    return arguments, argv[cut + 1 :]


def train(folder: Path, config: Path, recipe: str, seed: int, options: list[str], recipes: Path | None = None) -> None:
    """Train a system, unless its folder contains the finished run already.

    An interrupted run starts again from the beginning, since the times of a resumed run are not comparable.

    Args:
        folder: the run folder.
        config: YAML file of the system.
        recipe, seed, options: recipe that trains the system, its random seed and its further arguments.
        recipes: folder of the launchers in a clone.

    Raises:
        ValueError: if the folder contains a run with other settings, or something else.
        RuntimeError: if the training fails.
    """
    settings = {"recipe": recipe, "config": config.read_text(encoding="utf-8"), "options": options, "seed": seed}
    started = folder / COMPARISON_RUN
    if started.is_file() and json.loads(started.read_text(encoding="utf-8")) != settings:
        raise ValueError(
            f"{folder} was trained with other settings (see {started}): delete it, or name another --output_dir"
        )
    if (folder / RESULTS).is_file():
        print(f"{folder}: finished already")
        return
    if folder.exists():
        if not started.is_file():
            raise ValueError(f"{folder} is not a run of this comparison: move it away")
        shutil.rmtree(folder)
    with write_folder_atomically(folder) as unfinished:  # so that the folder has its settings from the start
        content = json.dumps(settings, ensure_ascii=False, indent=2)
        Path(unfinished, COMPARISON_RUN).write_text(content, encoding="utf-8")
    command = [sys.executable, *launcher(recipe, recipes), str(config), *options]
    command += ["--seed", str(seed), "--output_dir", str(folder)]
    print(" ".join(command), flush=True)
    status = subprocess.run(command, check=False).returncode
    if status or not (folder / RESULTS).is_file():
        raise RuntimeError(f"training {config} with seed {seed} failed (exit status {status}): see its messages above")


def runs_of(path: Path, arguments: argparse.Namespace, options: list[str], recipes: Path | None) -> list[Run]:
    """Return the runs of a YAML file, which are trained if necessary, or the run in a folder."""
    if path.suffix not in YAML:
        return [read_run(path)]
    runs = []
    for seed in arguments.seeds:
        folder = arguments.output_dir / "runs" / f"{path.stem}-seed{seed}"
        train(folder, path, arguments.recipe, seed, options, recipes)
        runs.append(read_run(folder))
    return runs


def measure_speeds(systems: list[System], sentences: int) -> dict[str, Speed]:
    """Measure the speed of the best run of each system on a number of validation sentences.

    The systems take turns, so that other load on the machine affects all of them.
    """
    texts = systems[0].best.predictions.texts[:sentences]
    taggers = {}
    for system in systems:
        task, folder = system.task, str(system.best.folder)
        options = {"aggregation_strategy": "simple"} if task is TAGGING else {"truncation": True}
        taggers[system.name] = pipeline(task.pipeline_tag, folder, trust_remote_code=True, device="cpu", **options)
    single: dict[str, list[float]] = {name: [] for name in taggers}
    batches: dict[str, list[float]] = {name: [] for name in taggers}
    for tagger in taggers.values():
        tagger(texts[:BATCH_SIZE], batch_size=BATCH_SIZE)
    for _ in range(ROUNDS):
        for name, tagger in taggers.items():
            single[name] += [seconds_of(partial(tagger, text, batch_size=1)) for text in texts]
            batches[name].append(seconds_of(partial(tagger, texts, batch_size=BATCH_SIZE)))
    return {name: Speed(1e3 * median(single[name]), len(texts) / median(batches[name])) for name in taggers}


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    arguments, options = parse(argv)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    # Folders come first, and the runs are compared after each step, to find a mismatch before hours of training.
    paths = sorted(arguments.systems, key=lambda path: path.suffix in YAML)
    runs: list[Run] = []
    for path in paths:
        runs += runs_of(path, arguments, options, recipes)
        systems = group_runs(runs)
    count = min(arguments.latency_sentences, len(systems[0].best.predictions.texts))
    print(f"measuring speed on {count} sentences ...", flush=True)
    speeds = measure_speeds(systems, count)
    conditions = {
        "one sentence": f"median of {count} sentences, one at a time, {ROUNDS} times",
        "sentences a second": f"the same in batches of {BATCH_SIZE}, median of {ROUNDS} times, systems in turn",
        "CPU": hardware(),
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }
    write_report(arguments.output_dir, systems, speeds, conditions, arguments.sentences)
    for system in systems:
        speed = speeds[system.name].sentences_per_second
        print(f"{system.name}: {system.task.main_metric_name} {system.score:.4f}, {speed:.0f} sentences a second")
    print(f"saved in {arguments.output_dir}: report.html, report.md, tables as CSV, pictures")
