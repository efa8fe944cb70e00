"""The commands: `bilstm-crf NAME ...`, and the launchers in recipes/."""

from pathlib import Path


def sample_config(name: str, recipes: Path | None) -> list[str]:
    """Return the arguments of a run without arguments: a configuration in `recipes`, if given."""
    return [] if recipes is None else [str(recipes / "configs" / name)]


def sample_files(name: str, suffix: str, recipes: Path | None) -> dict[str, Path]:
    """Return the files of the sample `name` by split, or none outside of a clone."""
    splits = () if recipes is None else ("train", "validation")
    return {split: recipes / "data" / name / f"{split}.{suffix}" for split in splits}


def launcher(name: str, recipes: Path | None) -> list[str]:
    """Return the arguments of Python that run the recipe `name`: the launcher in a clone, else the command."""
    command = {"sequence_classification": "classify"}.get(name, name)
    return ["-m", __package__, command] if recipes is None else [str(recipes / f"{name}.py")]
