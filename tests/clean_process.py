"""A process in which the package cannot be imported, as for a user who only has an exported model."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any


def run_without_package(code: str, folder: Path, environment: dict[str, str] | None = None) -> Any:
    """Run `code` in `folder` and return the JSON that it prints last.

    By default it runs offline and with an empty cache of remote code.
    """
    if environment is None:
        environment = os.environ | {"HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    script = "import sys\nsys.modules['bilstm_crf_hf'] = None\n" + textwrap.dedent(code)
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])
