"""The trainer of the paper: verl, in an environment of its own."""
