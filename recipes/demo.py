"""Try a tagger in the browser: python recipes/demo.py MODEL [--classifier MODEL] [--revision COMMIT] [--server_port N]

MODEL is the folder of a finished run, or a model on the Hub, whose code then runs at the commit that --revision names.
The page is that of recipes/space, which goes to a Space as it stands; its README tells more. Wants
`pip install -e ".[demo]"`.
"""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("space") / "app.py"), run_name="__main__")
