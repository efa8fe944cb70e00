"""Convert the tutorial's checkpoint: python recipes/convert_checkpoint.py SOURCE OUTPUT_DIR [--tokenizer NAME_OR_DIR]

SOURCE, a folder or a name on the Hub, holds config.json (model_type BiLSTM_CRF) and pytorch_model.bin, or one *.bin or
*.pth. OUTPUT_DIR is then what `pipeline("token-classification", ...)` and the Auto classes load. All is checked first;
of what cannot be converted nothing is written, and a pickle that could run code is refused.
"""

import argparse
from pathlib import Path

from ..hub.legacy_checkpoint import convert_checkpoint


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder of the tutorial's model, or its name on the Hub")
    parser.add_argument("output_dir", help="a folder that does not exist yet, or is empty")
    parser.add_argument("--tokenizer", help="its tokenizer, in a folder or on the Hub; default: that in SOURCE, if any")
    arguments = parser.parse_args(argv)
    try:
        convert_checkpoint(arguments.source, arguments.output_dir, arguments.tokenizer)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"saved in {arguments.output_dir}")
    if not Path(arguments.output_dir, "tokenizer_config.json").is_file():
        print("there is no tokenizer in it, which `pipeline` needs: convert again with --tokenizer")
