"""A drawn world with exact truth, small enough for a model of a million parameters and a machine without a GPU."""
