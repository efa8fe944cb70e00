"""Train a text classifier: bilstm-crf classify [config.yaml] [--argument value ...]

With --text TEXT [...] or --file FILE the command classifies texts, instead of training, and prints label, probability
and text. It then has the options of `bilstm-crf tag`: --format json, --model, --backend onnx, --trust_remote_code.

Each text has one label, such as a sentiment, an emotion or a topic. By default a new BiLSTM reads characters.
--tokenizer_name lets it read the tokens of another tokenizer, and --model_name_or_path fine-tunes any encoder with the
same data and the same scores. In a clone, `python recipes/sequence_classification.py` without data of your own trains
on the sentences in recipes/data/sentiment, with the settings in recipes/configs/sentiment_sample.yaml where no argument
is given.
"""

from pathlib import Path
from typing import Any

from ..inference.predictors import LabelPredictor
from ..models import CLASSIFIER
from ..training.arguments import CardArguments, ModelArguments
from ..training.classification import (
    ClassifierTrainingArguments,
    DataArguments,
    prepare_classification,
    train_classifier,
)
from . import new_parser, sample_config, sample_files
from .tag import print_predictions
from .training_steps import publish_if_asked, start_training


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    if any(argument.partition("=")[0] in ("--text", "--file") for argument in argv):
        parser = new_parser(__doc__)
        parser.add_argument("--text", nargs="+", action="extend", default=[], help="text to classify")
        print_predictions(parser, argv, LabelPredictor, CLASSIFIER, labelled)
        return
    with start_training(
        (ModelArguments, DataArguments, CardArguments, ClassifierTrainingArguments),
        argv,
        __doc__,
        sample_config("sentiment_sample.yaml", recipes),
    ) as (*settings, arguments):
        setup = prepare_classification(settings[0], settings[1], sample_files("sentiment", "tsv", recipes))
        publish_if_asked(train_classifier(setup, setup.inputs["train"], settings, arguments))


def labelled(text: str, values: dict[str, Any]) -> str:
    """Return the label of a text, its probability and the text; only the text if it is empty."""
    return "\t".join(["" if values["label"] is None else f"{values['label']}\t{values['score']:.4f}", text])
