"""Try a tagger in the browser: bilstm-crf demo MODEL [--classifier MODEL] [--revision COMMIT] [--server_port N]

MODEL is the folder of a finished run, or a model on the Hub, of which --revision names the commit whose code may run.
The page is the folder inference/space of the package, which can be uploaded as a Space without changes. It needs
`pip install "bilstm-crf-hf[demo]"`.
"""

from pathlib import Path

from ..inference.space import app


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    app.main(argv, __doc__)
