"""Calibrate a tagger: bilstm-crf calibrate [config.yaml] --model_name_or_path FOLDER --validation_file FILE

The command fits a number to labelled sentences that the tagger has not been trained on: the temperature, by which the
scores of the model are divided, so that of all entities with a score of 0.9, nine out of ten are right. It writes the
number to the field `temperature` of config.json; the weights and the entities stay the same. It prints the calibration
with and without the temperature, on these sentences and on those of --test_file, and adds it to all_results.json, for
the model card.

Sentences that --validation_split_percentage has held out of a training are drawn again by the same --train_file and
percentage, whatever the seed of the training is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers.hf_argparser import HfArg

from .. import crf
from ..data.ner import CorpusArguments, load_ner_datasets
from ..data.splits import SplitArguments, read_splits
from ..evaluation.analysis import Analysis, tag_sentences
from ..evaluation.calibration import fit_temperature
from ..evaluation.runs import CALIBRATION, CONFIG, RESULTS, TRAINING_RUN, read_json
from ..inference.predictors import EntityPredictor, load_predictor
from ..pipeline_bilstm_crf import BATCH_SIZE
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from ..training.arguments import configure_logging, parse_arguments
from ..utils.files import locked, write_json

SCORES = {"ECE": "expected calibration error", "Brier score": "Brier score"}
"""Names of the scores that are printed and recorded, by their keys in `Analysis.calibration`."""


@dataclass
class CalibrationArguments:
    """The tagger to calibrate."""

    model_name_or_path: str = HfArg(help="Folder of the tagger.")


@dataclass
class CalibrationSplits(SplitArguments):
    """The source of the sentences to fit to, and of those to measure on as well."""

    test_file: str | None = HfArg(default=None, help="File of further sentences, to measure the calibration on.")


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    types = (CalibrationArguments, CalibrationSplits, CorpusArguments)
    arguments, sources, corpus = parse_arguments(types, argv, __doc__)
    configure_logging()
    folder = Path(arguments.model_name_or_path)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder: name that of a trained tagger")
    with locked(folder):
        check_held_out(folder, sources.validation_split_percentage)
        datasets = read_splits(load_ner_datasets, sources, {}, {"validation"}, **corpus.options)
        tagger = load_tagger(folder)
        config = read_json(folder / CONFIG)
        results = read_json(folder / RESULTS) if (folder / RESULTS).exists() else None
        temperature = round(fit_temperature(lambda t: tag(tagger, datasets["validation"], t).scored()), 3)
        splits = [split for split in ("validation", "test") if split in datasets]
        measured = {split: measure(tagger, datasets[split], temperature) for split in splits}
        write_json(folder / CONFIG, dict(sorted((config | {"temperature": temperature}).items())))
        if results is not None:
            percentage = sources.validation_split_percentage
            source = f"train ({percentage} % held out)" if percentage else sources.validation_split
            record = {"temperature": temperature, "source": source, **measured}
            write_json(folder / RESULTS, dict(sorted((results | {CALIBRATION: record}).items())))
    for split, found in measured.items():
        before, after = found["without"], found["with"]
        scores = ", ".join(f"{name} {before[key]:.4f} -> {after[key]:.4f}" for key, name in SCORES.items())
        print(f"{split}, {found['sentences']} sentences: {scores}")
    print(f"temperature {temperature}, saved in {folder / CONFIG}")


def check_held_out(folder: Path, percentage: int | None) -> None:
    """Raise ValueError if sentences are drawn from a train split of which the training has held out another part."""
    if percentage and (folder / TRAINING_RUN).exists():
        held_out = read_json(folder / TRAINING_RUN, "arguments")["arguments"].get("validation_split_percentage")
        if held_out != percentage:
            raise ValueError(
                f"{folder / TRAINING_RUN}: validation_split_percentage is {held_out}, not {percentage}: the tagger has "
                "been trained on these sentences, give others"
            )


def load_tagger(folder: Path) -> EntityPredictor:
    """Load the tagger in a folder.

    Raises:
        ImportError: if the tagger reads morphemes, and Kiwi is not installed.
        ValueError: if its model has no CRF, or brings along code of another version, which may know no temperature.
    """
    predictor = load_predictor(str(folder), BATCH_SIZE)
    model = predictor.pipe.model
    if not isinstance(predictor, EntityPredictor) or not hasattr(model, "crf"):
        raise ValueError(f"{folder}: {type(model).__name__} has no CRF: name a tagger with a CRF")
    BiLSTMCRFProcessor(predictor.pipe.tokenizer, model.config)  # the pipeline would tag without morphemes
    code = folder / Path(crf.__file__).name
    if code.exists() and code.read_bytes() != Path(crf.__file__).read_bytes():
        raise ValueError(f"{code} is not that of this version: load the model with this version and save it again")
    return predictor


def tag(tagger: EntityPredictor, dataset: Dataset, temperature: float) -> Analysis:
    """Return the analysis of a tagger on a data set with a temperature."""
    tagger.pipe.model.config.temperature = temperature
    return Analysis(tag_sentences(tagger, dataset))


def measure(tagger: EntityPredictor, dataset: Dataset, temperature: float) -> dict[str, Any]:
    """Return the number of sentences, and the calibration of the entities in them without and with a temperature."""
    found = {
        name: tag(tagger, dataset, value).calibration() for name, value in (("without", 1.0), ("with", temperature))
    }
    return {"sentences": len(dataset)} | {name: {key: row[key] for key in SCORES} for name, row in found.items()}
