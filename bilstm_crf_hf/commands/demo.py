"""Try a tagger in the browser: python recipes/demo.py MODEL [--classifier MODEL] [--revision COMMIT] [--server_port N]

MODEL is the folder of a finished run, or a model on the Hub, whose code then runs at the commit that --revision names.
The page is that of recipes/space, which goes to a Space as it stands; its README tells more. Wants
`pip install -e ".[demo]"`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("space")))
from app import main  # noqa: E402

if __name__ == "__main__":
    main(sys.argv[1:])
