"""Commands of `bilstm-crf NAME ...` and of the launchers in recipes/."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

LAUNCHERS = {"sequence_classification": "classify", "convert_checkpoint": "convert"}
"""Names of the commands whose launchers have other names."""


def new_parser(description: str | None) -> ArgumentParser:
    """Return a parser that shows the description as it stands and does not complete abbreviated arguments."""
    return ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)


def sample_config(name: str, recipes: Path | None) -> Path | None:
    """Return the configuration of a sample in a clone, None outside of one."""
    return None if recipes is None else recipes / "configs" / name


def sample_files(name: str, suffix: str, recipes: Path | None) -> dict[str, Path]:
    """Return the files of a sample in a clone by their splits, nothing outside of a clone."""
    if recipes is None:
        return {}
    return {split: recipes / "data" / name / f"{split}.{suffix}" for split in ("train", "validation")}


def launcher(name: str, recipes: Path | None) -> list[str]:
    """Return the arguments of Python that run a recipe: its launcher in a clone, its command outside of one."""
    return ["-m", __package__, LAUNCHERS.get(name, name)] if recipes is None else [str(recipes / f"{name}.py")]
