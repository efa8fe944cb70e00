"""Analyze a tagger: bilstm-crf analyze [config.yaml] --model_name_or_path MODEL --validation_file FILE

The command tags labelled sentences of a file or of a data set on the Hub, and reports in --output_dir

- the calibration of the scores: a reliability diagram, calibration errors, precision from a score on;
- the errors by kind, type, length and, with training data, by whether the entity occurs there;
- entities with high scores that contradict gold, where gold may be wrong.

`analysis.md` is the report, `analysis.json` has all numbers.
"""

from dataclasses import dataclass
from pathlib import Path

from transformers.hf_argparser import HfArg

from ..data.ner import CorpusArguments, load_ner_datasets
from ..data.splits import SplitArguments, read_splits
from ..evaluation.analysis import Analysis, entity_texts, tag_sentences
from ..evaluation.analysis_page import write_analysis
from ..inference.predictors import EntityPredictor, load_predictor
from ..models import CHOICE
from ..pipeline_bilstm_crf import BATCH_SIZE
from ..training.arguments import configure_logging, parse_arguments
from ..utils.files import locked


@dataclass
class AnalysisArguments:
    """The tagger to analyze, and the settings of the report."""

    model_name_or_path: str = HfArg(help=f"Tagger: {CHOICE}.")
    output_dir: str = "outputs/analysis"
    sentences: int = HfArg(default=20, help="Sentences to quote for each kind of error; 0 to quote no data.")
    bins: int = HfArg(default=10, help="Bins of the reliability diagram.")
    gold_error_score: float = HfArg(default=0.99, help="Least score of a listed entity that contradicts gold.")
    trust_remote_code: bool = HfArg(default=False, help="Run the code that the model brings along.")

    def __post_init__(self) -> None:
        if self.sentences < 0:
            raise ValueError(f"sentences is {self.sentences}: it must be 0 or more")
        if self.bins < 1:
            raise ValueError(f"bins is {self.bins}: it must be 1 or more")
        if not 0 <= self.gold_error_score <= 1:
            raise ValueError(f"gold_error_score is {self.gold_error_score}: it must be between 0 and 1")


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    arguments, sources, corpus = parse_arguments((AnalysisArguments, SplitArguments, CorpusArguments), argv, __doc__)
    configure_logging()
    with locked(Path(arguments.output_dir)):
        datasets = read_splits(load_ner_datasets, sources, {}, {"validation"}, **corpus.options)
        name = arguments.model_name_or_path
        predictor = load_predictor(name, BATCH_SIZE, trust_remote_code=arguments.trust_remote_code)
        if not isinstance(predictor, EntityPredictor):
            raise ValueError(f"{name} classifies texts: name a tagger")
        analysis = Analysis(
            tag_sentences(predictor, datasets["validation"]),
            entity_texts(datasets["train"]) if "train" in datasets else None,
            arguments.bins,
            arguments.gold_error_score,
        )
        numbers = write_analysis(Path(arguments.output_dir), analysis, name, arguments.sentences)
    trust = numbers["calibration"]
    print(
        f"F1 {numbers['scores']['F1']:.4f}, expected calibration error {trust['ECE']:.4f}, Brier score "
        f"{trust['Brier score']:.4f}, {len(numbers['probable gold errors'])} probable errors in gold"
    )
    print(f"saved in {arguments.output_dir}: analysis.md, analysis.json, and with matplotlib reliability.png")
