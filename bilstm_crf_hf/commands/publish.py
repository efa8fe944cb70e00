"""Publish a trained model: python recipes/publish.py OUTPUT_DIR NAME/MODEL [--private] [--revision v2] [--dry_run]

Writes the model's card (README.md in OUTPUT_DIR, unless there is one), checks all that would be sent, and loads it as a
user does who has not this package; only then is it sent. The access token is that of `hf auth login`, or of HF_TOKEN.
After an interruption, start it again: what is on the Hub is whole or not there, and the tag comes last.
"""

import argparse
import logging
from pathlib import Path

from huggingface_hub.errors import HTTPError

from ..hub.publishing import describe, prepare, send


def new_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path, help="folder of a finished run")
    parser.add_argument("repo_id", help="name/model")
    parser.add_argument("--private", action="store_true", default=None, help="if the repository is new")
    parser.add_argument("--revision", default="v1", help="tag of what is sent, which users pin (default: v1)")
    parser.add_argument("--comparison", type=Path, help="folder of recipes/compare.py, for a table in a new card")
    parser.add_argument("--dry_run", action="store_true", help="do all but send")
    return parser


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    parser = new_parser()
    arguments = parser.parse_args(argv)
    try:
        with prepare(
            arguments.output_dir, arguments.repo_id, arguments.revision, arguments.private, arguments.comparison
        ) as publication:
            print(describe(publication))
            print("nothing was sent" if arguments.dry_run else f"sent: {send(publication)}")
    except (OSError, ValueError, RuntimeError, HTTPError) as error:  # RuntimeError: weights that did not get through
        parser.error(str(error))
