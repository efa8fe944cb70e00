"""Try a tagger in the browser: bilstm-crf demo [MODEL] [--classifier MODEL] [--revision COMMIT] [--server_port N]

MODEL is a model of the package, the folder of a finished run, or a model on the Hub, of which --revision names the
commit whose code may run. Default: klue-ner and nsmc-small. The page is the folder inference/space of the package,
which can be uploaded as a Space without changes. It needs `pip install "bilstm-crf-hf[demo]"`.
"""

import os
from pathlib import Path

from transformers import Pipeline

from ..inference.predictors import load_pipeline
from ..inference.space import app
from ..models import CLASSIFIER, TAGGER, model_names


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    os.environ.setdefault("MODEL_ID", TAGGER)
    os.environ.setdefault("CLASSIFIER_ID", CLASSIFIER)
    app.main(argv, __doc__, load)


def load(task: str, name: str, revision: str | None) -> Pipeline:
    """Load a model as the page does, which runs its code; one with the name of a model of the package without code."""
    if name not in model_names():
        return app.load(task, name, revision)
    pipe = load_pipeline(name)
    if pipe.task != task:
        raise SystemExit(f"{name} is for {pipe.task}: name a model for {task}")
    return pipe
