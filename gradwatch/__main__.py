"""``python -m gradwatch``: the command line."""

import sys

from gradwatch.cli import main

if __name__ == "__main__":
    sys.exit(main())
