"""Compare systems: bilstm-crf compare A.yaml B.yaml outputs/finished [--seeds 42 43 44] [-- --argument value]

Each YAML file is trained once per seed by the command that --recipe names, with the arguments after `--`. A folder
contains a finished run. Runs whose folders differ in `-seed42` only belong to one system. Finished training is not
repeated, so an interrupted comparison continues when it is started again.
"""

import argparse
from functools import partial
from pathlib import Path
from statistics import median

import torch

from ..evaluation.comparison import Speed, System, group_runs
from ..evaluation.comparison_page import write_report
from ..evaluation.markdown import one_line
from ..evaluation.runs import Run, read_run
from ..inference.predictors import load_predictor
from ..utils.environment import hardware, versions
from ..utils.files import locked
from ..utils.timing import seconds_of
from . import new_parser
from .training_steps import train

ROUNDS = 3
BATCH_SIZE = 32
YAML = (".yaml", ".yml")


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the arguments of the comparison, and those of the recipe after `--`."""
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = new_parser(__doc__)
    parser.add_argument("systems", nargs="+", type=Path, help="YAML files to train, folders of finished runs")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/comparison"))
    parser.add_argument("--recipe", choices=("ner", "classify", "sequence_classification"), default="ner")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="seeds of the runs of each YAML file")
    parser.add_argument("--latency_sentences", type=int, default=200, help="sentences to measure the speed on")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that models bring along")
    parser.add_argument("--sentences", type=int, default=20, help="sentences to quote on which systems differ, or 0")
    arguments = parser.parse_args(argv[:cut])
    if arguments.recipe == "classify":
        arguments.recipe = "sequence_classification"  # the name of the launcher, which folders of runs contain
    stems = [path.stem for path in arguments.systems if path.suffix in YAML]
    if repeated := {stem for stem in stems if stems.count(stem) > 1}:
        parser.error(f"several YAML files have the name {', '.join(sorted(repeated))}: rename them")
    for path in arguments.systems:
        if not (path.is_file() if path.suffix in YAML else path.is_dir()):
            parser.error(f"{path}: neither a YAML file nor the folder of a finished run")
    if len(set(arguments.seeds)) < len(arguments.seeds):
        parser.error("--seeds has a seed twice")
    if arguments.latency_sentences < 1:
        parser.error("--latency_sentences must be at least 1")
    return arguments, argv[cut + 1 :]


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


def measure_speeds(systems: list[System], sentences: int, trust_remote_code: bool = False) -> dict[str, Speed]:
    """Measure the speed of the best run of each system on a number of validation sentences.

    The systems take turns, so that other load on the machine affects all of them.
    """
    texts = systems[0].best.predictions.texts[:sentences]
    taggers = {}
    for system in systems:
        device = torch.device("cpu")
        predictor = load_predictor(str(system.best.folder), BATCH_SIZE, "", trust_remote_code, device)
        taggers[system.name] = partial(predictor.pipe, **predictor.options)
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
    with locked(arguments.output_dir):
        # Folders come first, and the runs are compared after each step, to find a mismatch before hours of training.
        paths = sorted(arguments.systems, key=lambda path: path.suffix in YAML)
        runs: list[Run] = []
        for path in paths:
            runs += runs_of(path, arguments, options, recipes)
            systems = group_runs(runs)
        count = min(arguments.latency_sentences, len(systems[0].best.predictions.texts))
        print(f"measuring speed on {count} sentences ...", flush=True)
        speeds = measure_speeds(systems, count, arguments.trust_remote_code)
        conditions = {
            "one sentence": f"median of {count} sentences, one at a time, {ROUNDS} times",
            "sentences a second": f"the same in batches of {BATCH_SIZE}, median of {ROUNDS} times, systems in turn",
            "CPU": hardware(),
            "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
        }
        write_report(arguments.output_dir, systems, speeds, conditions, arguments.sentences)
    for system in systems:
        speed = speeds[system.name].sentences_per_second
        name, score = one_line(system.name), f"{system.task.main_metric_name} {system.score:.4f}"
        print(f"{name}: {score}, {speed:.0f} sentences a second")
    print(f"saved in {arguments.output_dir}: report.html, report.md, tables as CSV, pictures")
