"""Program `bilstm-crf`, which runs a command by its name: bilstm-crf NAME [--argument value ...]"""

import sys
from importlib import import_module
from pathlib import Path

from . import LAUNCHERS

COMMANDS = {
    "tag": "tag texts",
    "ner": "train a tagger",
    "classify": "train a text classifier, or classify texts",
    "pretrain": "pretrain a BiLSTM on raw text",
    "distill": "train a tagger that learns from other taggers",
    "distill-classifier": "train a text classifier that learns from other classifiers",
    "train-embeddings": "train word2vec or fastText vectors on raw text",
    "sweep": "train variants of a configuration",
    "compare": "train systems and write a report that compares them",
    "analyze": "report the errors and the calibration of a tagger",
    "calibrate": "fit the scores of a tagger to held-out sentences",
    "predict": "tag or classify a file of texts",
    "export-onnx": "export a tagger to ONNX",
    "convert": "convert a checkpoint of the tutorial",
    "publish": "publish a trained model on the Hub",
    "demo": "try a tagger in the browser",
    "benchmark": "measure speed and memory",
}
"""Summaries of the commands by their names. The command `a-b` is the function `main` of the module `a_b`."""

EXTRAS = {
    "demo": ["gradio"],
    "embeddings": ["gensim"],
    "morphology": ["kiwipiepy_model"],
    "onnx": ["onnx", "onnxruntime", "onnxscript"],
    "plot": ["markdown_it", "matplotlib"],
}
"""Modules that commands import, by the extras of the package that install them."""


def main(argv: list[str] | None = None, recipes: Path | None = None) -> None:
    """Run the command that the first argument names.

    Args:
        argv: default: the arguments of the process.
        recipes: folder of the launchers in a clone, with their configurations and sample data.
    """
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name not in COMMANDS:
        width = max(map(len, COMMANDS))
        lines = (f"  {command:{width}}  {summary}" for command, summary in COMMANDS.items())
        usage = "usage: bilstm-crf NAME [--help] [--argument value ...]\n\ncommands:\n" + "\n".join(lines)
        if name in ("-h", "--help"):
            print(usage)
            return
        raise SystemExit(f"bilstm-crf: there is no command {name!r}\n\n{usage}")
    sys.argv[0] = f"bilstm-crf {name}"  # the name of the program in the messages of argparse
    try:
        import_module(f"{__package__}.{name.replace('-', '_')}").main(arguments, recipes)
    except ModuleNotFoundError as error:
        module = str(error.name).partition(".")[0]
        for extra, modules in EXTRAS.items():
            if module in modules:
                raise SystemExit(f'{sys.argv[0]} needs {module}: pip install "bilstm-crf-hf[{extra}]"') from None
        raise


def launch(path: str) -> None:
    """Run the command of the launcher at `path`, in a clone, with the arguments of the process."""
    name = LAUNCHERS.get(Path(path).stem, Path(path).stem).replace("_", "-")
    main([name, *sys.argv[1:]], Path(path).parent)


if __name__ == "__main__":
    main()
