"""Tag or classify a file of texts: accelerate launch recipes/predict.py [config.yaml] --argument value ...

    python recipes/predict.py --model_name_or_path outputs/ner --input_file news.jsonl --output_file tagged.jsonl

Rows come from a `.txt` (a text a line), `.jsonl`, `.csv` (with a header) or `.parquet` file and go, in their order, to

- `.jsonl` or `.parquet`: all columns of the input, and `entities` or, of a text classifier, `label` and `score`;
- `.txt`: `<손흥민:PS>은 <춘천:LC>에서 태어났다.` or label, tab, text.

A text that is empty or white space has no entities and no label. A row without a text (null, a number, no such column),
or one that is broken, is an error that names it, before anything is tagged. A run that was killed carries on when it is
started again, on any number of processes, and ends with the same bytes; until then its shards lie in OUTPUT.parts.
"""

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from transformers.utils.logging import disable_progress_bar

from ..inference.files import check_files, predict_file
from ..inference.predictors import load_predictor
from ..training.arguments import parse_arguments


@dataclass
class PredictionArguments:
    """Which texts are read, by which model, and where its predictions go."""

    model_name_or_path: str = field(metadata={"help": "Token or text classifier on the Hub or in a folder."})
    input_file: str = field(metadata={"help": "File that ends in .txt, .jsonl, .csv or .parquet."})
    output_file: str = field(metadata={"help": "File that ends in .jsonl, .parquet or .txt."})
    text_column: str = field(default="text", metadata={"help": "Column of texts."})
    column_prefix: str = field(
        default="", metadata={"help": "Goes before the names of new columns, as where the input has a `label` already."}
    )
    batch_size: int = field(default=128, metadata={"help": "Texts that are tagged at a time."})
    shard_size: int = field(
        default=1024, metadata={"help": "Rows that are saved at a time: a kill loses at most these, of each process."}
    )
    overwrite_output: bool = field(default=False, metadata={"help": "Whether an output that exists is replaced."})
    use_cpu: bool = field(default=False, metadata={"help": "Whether to leave GPUs alone."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Whether to run code that a model brings along."})

    def __post_init__(self) -> None:
        for name in ("batch_size", "shard_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it has to be 1 or more")


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    (arguments,) = parse_arguments((PredictionArguments,), argv, __doc__)
    input_file, output_file = Path(arguments.input_file), Path(arguments.output_file)
    check_files(input_file, output_file)
    # Without `cpu`, processes would not know of each other on a machine that has nothing else. They may wait long,
    # while the main one reads all of the input and for the last shard.
    cpu = arguments.use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu, timeout=timedelta(days=7))
    logging.basicConfig(level=logging.INFO if state.is_main_process else logging.WARNING, format="%(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    if not state.is_main_process:
        disable_progress_bar()

    predictor = load_predictor(
        arguments.model_name_or_path,
        arguments.batch_size,
        arguments.column_prefix,
        arguments.trust_remote_code,
        state.device,
    )
    predict_file(
        predictor,
        input_file,
        output_file,
        arguments.text_column,
        arguments.shard_size,
        arguments.overwrite_output,
        state,
    )
    if state.is_main_process:
        print(f"saved in {output_file}")
    state.destroy_process_group()
