"""`viper-job`, to be run by the python of lmms-eval's environment; without MLflow, which is another test's affair."""

import sys

from viper_jobs.main import main

if __name__ == "__main__":
    sys.exit(main(record=lambda _: None))
