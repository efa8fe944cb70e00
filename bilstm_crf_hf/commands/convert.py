"""Convert the tutorial's checkpoint: bilstm-crf convert SOURCE OUTPUT_DIR [--tokenizer NAME_OR_DIR]

SOURCE, a folder or a name on the Hub, contains config.json (model_type BiLSTM_CRF) and pytorch_model.bin, or one *.bin
or *.pth. `pipeline("token-classification", ...)` and the Auto classes load OUTPUT_DIR. The checkpoint is checked before
anything is written; a pickle that could run code is refused.
"""

from pathlib import Path

from ..hub.legacy_checkpoint import convert_checkpoint
from ..utils.files import locked
from . import new_parser


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    parser = new_parser(__doc__)
    parser.add_argument("source", help="folder of the tutorial's model, or its name on the Hub")
    parser.add_argument("output_dir", help="the new folder, which must not exist or must be empty")
    parser.add_argument("--tokenizer", help="tokenizer in a folder or on the Hub; default: that in SOURCE")
    arguments = parser.parse_args(argv)
    output = Path(arguments.output_dir).absolute()
    try:
        with locked(output.parent, output.name):  # beside the folder, which must be empty
            convert_checkpoint(arguments.source, arguments.output_dir, arguments.tokenizer)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"saved in {arguments.output_dir}")
    if not Path(arguments.output_dir, "tokenizer_config.json").is_file():
        print("it has no tokenizer, which `pipeline` needs: convert again with --tokenizer")
