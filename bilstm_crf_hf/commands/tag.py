"""Tag texts: bilstm-crf tag [TEXT ...] [--file FILE] [--format json] [--model MODEL] [--backend onnx]

The command prints each text with its entities marked, such as `<손흥민:PS>은 <춘천:LC>에서 태어났다.`; with --format
json, an object with the entities, their places in the text and their probabilities. Without a text and a file it reads
lines from standard input. `bilstm-crf predict` is for large files and for those with further columns.
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from ..data.inline_marks import parse_inline
from ..data.lines import decode_lines, without_end
from ..inference.predictors import BACKENDS, EntityPredictor, Predictor, load_predictor
from ..models import CHOICE, TAGGER
from ..pipeline_bilstm_crf import BATCH_SIZE, BATCHES_SORTED, render_entities
from ..utils.files import to_json
from . import new_parser

READ_AHEAD = BATCHES_SORTED * BATCH_SIZE
"""Number of lines that are read, and then sorted by length for the model, unless somebody types them."""


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    parser = new_parser(__doc__)
    parser.add_argument("text", nargs="*", help="text to tag")
    print_predictions(parser, argv, EntityPredictor, TAGGER, marked)


def marked(text: str, values: dict[str, Any]) -> str:
    """Return a text with its entities marked; warn if brackets in the text would be read as part of the marks."""
    line = render_entities(text, values["entities"])
    if "<" in text or ">" in text:
        spans = [(entity["start"], entity["end"], entity["entity_group"]) for entity in values["entities"]]
        try:
            is_readable = parse_inline(line) == (text, spans)
        except ValueError:
            is_readable = False
        if not is_readable:
            print(f"the text has < or > that look like marks, see --format json: {line}", file=sys.stderr)
    return line


def print_predictions(
    parser: ArgumentParser,
    argv: list[str],
    kind: type[Predictor],
    model: str,
    line_of: Callable[[str, dict[str, Any]], str],
) -> None:
    """Print what a model predicts for texts.

    Args:
        parser: parser with the argument `text`, which gets the others.
        argv: arguments.
        kind: class of the predictor.
        model: name of the default model.
        line_of: function that returns the line of a text and its prediction, without `--format json`.
    """
    parser.add_argument("--file", help="file with a text a line, or - for standard input")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="default: text")
    parser.add_argument("--model", default=model, help=f"{CHOICE}; default: {model}")
    parser.add_argument("--backend", choices=BACKENDS, default="torch", help="onnx: MODEL is a folder of export-onnx")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that the model brings along")
    arguments = parser.parse_args(argv)
    disable_progress_bar()
    try:
        options = {"trust_remote_code": arguments.trust_remote_code, "backend": arguments.backend}
        predictor = load_predictor(arguments.model, BATCH_SIZE, **options)
        if not isinstance(predictor, kind):
            raise ValueError(f"{arguments.model} is for {predictor.task}: name a model for {kind.task}")
        file = arguments.file or (None if arguments.text else "-")
        for texts in chain([arguments.text], read_batches(file) if file else ()):
            for text, values in zip(texts, predictor(texts), strict=True):
                print(to_json({"text": text} | values, text) if arguments.format == "json" else line_of(text, values))
            sys.stdout.flush()
    except BrokenPipeError:  # the program that reads the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError) as error:
        parser.error(str(error))


def read_batches(file: str) -> Iterator[list[str]]:
    """Yield the lines of a file, of standard input if its name is `-`, in lists."""
    name = "standard input" if file == "-" else file
    with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream:
        lines = map(without_end, decode_lines(stream, name))
        size = 1 if stream.isatty() else READ_AHEAD
        while batch := list(islice(lines, size)):
            yield batch
