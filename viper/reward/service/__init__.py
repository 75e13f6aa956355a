"""The reward as a server: callers send one output each, the similarity model sees batches."""
