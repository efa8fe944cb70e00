"""Try a tagger in the browser: bilstm-crf demo MODEL [--classifier MODEL] [--revision COMMIT] [--server_port N]

MODEL is the folder of a finished run, or a model on the Hub, whose code then runs at the commit that --revision names.
The page is the folder inference/space of the package, which goes to a Space as it stands. Wants
`pip install "bilstm-crf-hf[demo]"`.
"""

from pathlib import Path

from ..inference.space import app


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    app.main(argv)
