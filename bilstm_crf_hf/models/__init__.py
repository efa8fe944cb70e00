"""Trained models that come with the package, each in a folder without code: that of the package serves them."""

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

TAGGER, CLASSIFIER = "klue-ner", "nsmc-small"
"""Names of the models that commands use if no other one is named."""

FOLDER = Path(__file__).parent


def model_names() -> list[str]:
    """Return the names of the models in the package."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def model_path(name: str) -> str:
    """Return the folder of the model `name` in the package; the name itself if there is none.

    A folder of the same name with a model in it wins. A name that stays as it is may be a folder or a name on the Hub.
    """
    if name not in model_names():
        return name
    if Path(name, "config.json").is_file():
        logger.warning("%s is the model in the folder %s, not that of the package", name, Path(name).resolve())
        return name
    return str(FOLDER / name)


CHOICE = f"a model of the package ({', '.join(model_names())}), a folder, or a name on the Hub"
"""Ways to name a model, for help texts."""
