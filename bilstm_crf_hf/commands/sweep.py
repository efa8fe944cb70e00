"""Train variants of a configuration: python recipes/sweep.py SWEEP.yaml [--seeds 42 43] [-- --argument value]

The file names a configuration of recipes/ner.py and, of each variant, the arguments that differ:

    config: klue_ner.yaml            # beside this file
    runs:
      default: {}
      without jamo: {config_overrides: {jamo_embedding_size: 0}}

What follows `--` goes to every run. `-- --validation_split_percentage 10` scores on a part of the training set, so that
the validation split stays clean of choices. A sweep that was interrupted goes on when started again.
"""

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from ..evaluation.comparison import System, group_runs, read_run
from ..evaluation.markdown import Rows, markdown_table
from .compare import train

SCORES = {"f1": "F1", "klue_entity_macro_f1": "macro F1"}


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and those of the recipe behind `--`."""
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="file of the variants")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="of each variant; default: 42")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/sweep"), help="default: outputs/sweep")
    return parser.parse_args(argv[:cut]), argv[cut + 1 :]


def read_sweep(path: Path) -> dict[str, dict[str, Any]]:
    """The arguments of each run: those of the configuration, and those that differ.

    Raises:
        FileNotFoundError: one of the two files is not there.
        ValueError: the file lacks `config` or `runs`, or a run has no mapping of arguments, or a slash in its name.
    """
    sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(sweep, dict) or set(sweep) != {"config", "runs"} or not isinstance(sweep["runs"] or None, dict):
        raise ValueError(f"{path}: expected `config`, a file, and `runs`, names with arguments, and nothing else")
    base = yaml.safe_load((path.parent / sweep["config"]).read_text(encoding="utf-8")) or {}
    for name, arguments in sweep["runs"].items():
        if not isinstance(arguments, dict):
            raise ValueError(f"{path}: runs: {name}: expected arguments and their values, not {arguments!r}")
        if "/" in name:
            raise ValueError(f"{path}: runs: {name}: a name is that of a folder, without a slash")
    return {name: _merged(base, arguments) for name, arguments in sweep["runs"].items()}


def _merged(base: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """`arguments` go over those of `base`, and the fields of `config_overrides` over its fields."""
    merged = base | arguments
    if "config_overrides" in merged:
        merged["config_overrides"] = base.get("config_overrides", {}) | merged["config_overrides"]
    return merged


def rows_of(systems: list[System]) -> Rows:
    """The table, best first."""
    rows: Rows = []
    for system in systems:
        minutes = mean(run.seconds for run in system.runs) / 60
        row = {"run": system.name, "parameters": system.best.results["parameters"], "minutes": f"{minutes:.1f}"}
        for score, name in SCORES.items():
            row |= {name: system.mean(score), f"± {name}": system.deviation(score)}
        rows.append(row)
    return rows


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    arguments, options = parse(argv)
    runs = read_sweep(arguments.sweep)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    finished = []
    for name, values in runs.items():
        config = arguments.output_dir / f"{name}.yaml"
        config.write_text(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), encoding="utf-8")
        for seed in arguments.seeds:
            folder = arguments.output_dir / f"{name}-seed{seed}"
            train(folder, config, "ner", seed, options, recipes)
            finished.append(read_run(folder))
        table = markdown_table(rows_of(group_runs(finished)))
        Path(arguments.output_dir, "sweep.md").write_text(f"{table}\n", encoding="utf-8")
    print(f"{table}\nsaved in {arguments.output_dir / 'sweep.md'}")
