"""Commands of `bilstm-crf NAME ...` and of the launchers in recipes/."""

from pathlib import Path


def sample_config(name: str, recipes: Path | None) -> list[str]:
    """Return the arguments of a run without arguments: a configuration in a clone, nothing outside of one."""
    return [] if recipes is None else [str(recipes / "configs" / name)]


def sample_files(name: str, suffix: str, recipes: Path | None) -> dict[str, Path]:
    """Return the files of a sample in a clone by their splits, nothing outside of a clone."""
    splits = () if recipes is None else ("train", "validation")
    return {split: recipes / "data" / name / f"{split}.{suffix}" for split in splits}


def launcher(name: str, recipes: Path | None) -> list[str]:
    """Return the arguments of Python that run a recipe: its launcher in a clone, its command outside of one."""
    command = {"sequence_classification": "classify"}.get(name, name)
    return ["-m", __package__, command] if recipes is None else [str(recipes / f"{name}.py")]
