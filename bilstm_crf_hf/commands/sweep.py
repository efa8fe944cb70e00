"""Train variants of a configuration: bilstm-crf sweep SWEEP.yaml [--seeds 42 43] [-- --argument value]

The file names a configuration of `bilstm-crf ner`, and for each variant the arguments that differ:

    config: klue_ner.yaml            # in the folder of this file
    runs:
      default: {}
      without jamo: {config_overrides: {jamo_embedding_size: 0}}

Arguments after `--` are added to every run. `-- --validation_split_percentage 10` takes the scores on a part of the
training set, so that the validation split is not used for choices. An interrupted sweep continues when it is started
again.
"""

from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from ..evaluation.comparison import System, group_runs
from ..evaluation.markdown import Rows, markdown_table
from ..evaluation.runs import read_run
from ..training.arguments import joined_overrides
from ..training.config_files import argument_of, entries, read_entries
from ..utils.files import locked, write_atomically
from . import new_parser
from .training_steps import train

SCORES = {"f1": "F1", "klue_entity_macro_f1": "macro F1"}
"""Headings of the scores in the table, by their keys."""


def read_sweep(path: Path) -> dict[str, dict[str, Any]]:
    """Return the arguments of each run: those of the configuration with the ones that differ.

    Raises:
        FileNotFoundError: if one of the two files is missing.
        ValueError: if the file lacks `config` or `runs`, or a run has no mapping of arguments, an argument that is set
            for each run, or a slash in its name.
    """
    sweep = read_entries(path)
    kinds = {"config": yaml.ScalarNode, "runs": yaml.MappingNode}
    if {name: type(node) for name, node in sweep.items()} != kinds or not sweep["runs"].value:
        raise ValueError(f"{path}: expected `config`, a file, and `runs`, names with arguments, and no other key")
    config = path.parent / str(sweep["config"].value)
    base, runs = _arguments_of(read_entries(config), config), {}
    for name, node in entries(sweep["runs"], path).items():
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(f"{path}: runs: {name}: expected arguments and their values, not {node.value!r}")
        if "/" in name:
            raise ValueError(f"{path}: runs: {name}: a name must not contain a slash, since it names a folder")
        arguments = _arguments_of(entries(node, path), path)
        if taken := sorted({"seed", "output_dir"} & arguments.keys()):
            raise ValueError(f"{path}: runs: {name}: {taken[0]} is set for each run: give --seeds or --output_dir")
        runs[name] = base | arguments | joined_overrides(base, arguments)
    return runs


def _arguments_of(nodes: dict[str, yaml.Node], path: Path) -> dict[str, Any]:
    return {name: argument_of(node, path) for name, node in nodes.items()}


def rows_of(systems: list[System]) -> Rows:
    """Return the rows of the table, the best system first."""
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
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = new_parser(__doc__)
    parser.add_argument("sweep", type=Path, help="file of the variants")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="seeds of each variant; default: 42")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/sweep"), help="default: outputs/sweep")
    arguments, options = parser.parse_args(argv[:cut]), argv[cut + 1 :]
    if len(set(arguments.seeds)) < len(arguments.seeds):
        parser.error("--seeds has a seed twice")
    runs = read_sweep(arguments.sweep)
    with locked(arguments.output_dir):
        finished = []
        for name, values in runs.items():
            config = arguments.output_dir / f"{name}.yaml"
            config.write_text(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), encoding="utf-8")
            for seed in arguments.seeds:
                folder = arguments.output_dir / f"{name}-seed{seed}"
                train(folder, config, "ner", seed, options, recipes)
                finished.append(read_run(folder))
            table = markdown_table(rows_of(group_runs(finished)))
            with write_atomically(arguments.output_dir / "sweep.md") as file:
                file.write(f"{table}\n".encode())
    print(f"{table}\nsaved in {arguments.output_dir / 'sweep.md'}")
