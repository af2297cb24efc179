"""`python -m headstart`: the command line."""

import os
import sys

# Python puts the working folder before everything else; a random.py of the user's there is not for us to import.
if sys.path[0] in ("", os.getcwd()):  # noqa: PTH109 - pathlib would be imported from there
    del sys.path[0]

from headstart.cli.main import main

if __name__ == "__main__":
    main()
