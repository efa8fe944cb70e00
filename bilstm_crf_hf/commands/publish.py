"""Publish a trained model: bilstm-crf publish OUTPUT_DIR NAME/MODEL [--private] [--revision v2] [--dry_run]

The command writes the model card (README.md in OUTPUT_DIR, unless there is one), checks all files, loads the model
without this package, and then uploads the files. The access token is that of `hf auth login` or HF_TOKEN. An upload
that was interrupted can be started again: a commit is complete or absent, and the tag comes last.
"""

from pathlib import Path

from huggingface_hub.errors import HTTPError

from ..hub.packaging import run_folder
from ..hub.publishing import describe, prepare, send
from ..training.arguments import configure_logging
from . import new_parser


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    parser = new_parser(__doc__)
    parser.add_argument("output_dir", help="folder of a finished run, or a model of the package")
    parser.add_argument("repo_id", help="name/model")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--revision", default="v1", help="tag of the files, which users pin (default: v1)")
    parser.add_argument("--comparison", type=Path, help="output folder of `compare`, for a table in a new card")
    parser.add_argument("--dry_run", action="store_true", help="do everything but the upload")
    arguments = parser.parse_args(argv)
    configure_logging()
    try:
        repo_id, revision = arguments.repo_id, arguments.revision
        with (
            run_folder(arguments.output_dir, repo_id, revision) as folder,
            prepare(folder, repo_id, revision, arguments.private, arguments.comparison) as publication,
        ):
            print(describe(publication))
            print("nothing was sent" if arguments.dry_run else f"sent: {send(publication)}")
    except (OSError, ValueError, RuntimeError, HTTPError) as error:  # RuntimeError: an upload of weights that failed
        parser.error(str(error))
