"""`python -m viper`: the command line."""

import sys

from viper.cli import main

if __name__ == "__main__":
    sys.exit(main())
