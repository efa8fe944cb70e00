"""Tag or classify a file of texts: bilstm-crf predict [config.yaml] --input_file FILE --output_file FILE [...]

The input is a `.txt` file with a text a line, a `.csv` or `.tsv` file with a header, or a `.jsonl`, `.json`, `.parquet`
or `.xlsx` file. A `.jsonl`, `.json` or `.parquet` file may have lists of words in place of texts, as data sets with a
column `tokens` do, and a `.conll` file has a word a line and blank lines between sentences. All rows are written in
their order to

- `.jsonl` or `.parquet`: all columns of the input, and `entities` or, with a text classifier, `label` and `score`;
- `.txt`: `<손흥민:PS>은 <춘천:LC>에서 태어났다.` or label, tab, text;
- `.conll`, with --return_tags: a word and its tag a line, blank lines between sentences.

Words are joined by a space, or by nothing if no word of the file has more than one character. The places of entities
are those in the joined text. --return_tags adds the column `tags`: the BIO tag of the first character of each word; a
word without a visible character is O or inside the entity around it.

A text that is empty or only white space gets no entities and no label. A row without a text or with an error in its
format stops the command before any prediction. If a run is killed, the same command, on any number of processes
(`accelerate launch recipes/predict.py` in a clone), continues it from the shards in the folder OUTPUT.parts; the output
has the same bytes as that of an uninterrupted run.
"""

from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from transformers.hf_argparser import HfArg
from transformers.utils.logging import disable_progress_bar

from ..inference.files import check_files, keep_output, predict_file
from ..inference.predictors import load_predictor
from ..inference.texts import COLUMNS, TextOptions
from ..models import CHOICE, TAGGER
from ..training.arguments import FILE_TYPES, configure_logging, parse_arguments


@dataclass
class PredictionArguments:
    """The model, the input, the output, and their options."""

    input_file: str = HfArg(help=f"Input: {FILE_TYPES}, or {COLUMNS}.")
    output_file: str = HfArg(help=f"Output: .jsonl, .parquet or .txt, or with return_tags {COLUMNS}.")
    model_name_or_path: str = HfArg(default=TAGGER, help=f"Tagger or text classifier: {CHOICE}.")
    text_column: str | None = HfArg(default=None, help="Column of texts or of lists of words; else text or tokens.")
    token_unit: Literal["auto", "character", "word"] = HfArg(
        default="auto", help="Concatenate words (character) or join them by a space (word)."
    )
    token_column: int | None = HfArg(
        default=None, help=f"Column of the words in a {COLUMNS} file, from 0 (default: 0)."
    )
    return_tags: bool = HfArg(default=False, help="Add the column `tags` with a BIO tag for each word.")
    document_context: int = HfArg(
        default=0, help="Number of sentences of the same document (document_id, doc_id) to read around each one."
    )
    column_prefix: str = HfArg(default="", help="Prefix of new columns, if the input has a `label`, for example.")
    batch_size: int = HfArg(default=128, help="Number of texts in a batch.")
    shard_size: int = HfArg(default=1024, help="Number of rows that a process saves at a time.")
    overwrite_output: bool = HfArg(default=False, help="Replace an existing output file.")
    backend: str = HfArg(default="torch", help="torch, or onnx for a model in a folder of export-onnx.")
    use_cpu: bool = HfArg(default=False, help="Run on the CPU even if there is a GPU.")
    trust_remote_code: bool = HfArg(default=False, help="Run the code that the model brings along.")

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("shard_size", 1), ("document_context", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: set it to {least} or more")


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    (arguments,) = parse_arguments((PredictionArguments,), argv, __doc__)
    input_file, output_file = Path(arguments.input_file), Path(arguments.output_file)
    check_files(input_file, output_file)
    # Without `cpu`, processes on a machine without a GPU would not form a group. The timeout is long because they wait
    # for the main process to check the whole input, and for each other's last shard.
    cpu = arguments.use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu, timeout=timedelta(days=7))
    configure_logging(state.is_main_process)
    if not state.is_main_process:
        disable_progress_bar()

    name, batch_size, prefix = arguments.model_name_or_path, arguments.batch_size, arguments.column_prefix
    options = TextOptions(**{field.name: getattr(arguments, field.name) for field in fields(TextOptions)})
    with keep_output(output_file, state):
        predictor = load_predictor(
            name, batch_size, prefix, arguments.trust_remote_code, state.device, arguments.backend
        )
        shards = (arguments.shard_size, arguments.overwrite_output)
        predict_file(predictor, input_file, output_file, options, *shards, state)
    if state.is_main_process:
        print(f"saved in {output_file}")
    state.destroy_process_group()
