"""Train a tagger: bilstm-crf ner [config.yaml] [--argument value ...]

By default a new BiLSTM-CRF reads characters. --tokenizer_name lets it read the tokens of another tokenizer, and
--model_name_or_path fine-tunes any encoder with the same data and the same scores. A trained tagger keeps its entity
types and gets those of the data that it does not know; with --distill_from_self 1.0 it does not forget types that the
data do not annotate. In a clone, `python recipes/ner.py` without data of your own trains on the sentences in
recipes/data/ner, with the settings in recipes/configs/sample.yaml where no argument is given.
"""

from pathlib import Path

from ..training.arguments import CardArguments, TaggerArguments, TaggerTrainingArguments
from ..training.ner import DataArguments, prepare_tagging, train_tagger, training_rows
from . import sample_config, sample_files
from .training_steps import publish_if_asked, start_training


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    with start_training(
        (TaggerArguments, DataArguments, CardArguments, TaggerTrainingArguments),
        argv,
        __doc__,
        sample_config("sample.yaml", recipes),
    ) as (*settings, arguments):
        model, corpora = prepare_tagging(settings[0], settings[1], sample_files("ner", "txt", recipes))
        rows, trainer_class = training_rows(model, corpora, settings[0], arguments)
        publish_if_asked(train_tagger(model, corpora, rows, settings, arguments, trainer_class))
