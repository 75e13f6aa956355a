"""Where model versions come from: the walk back to the base, and what each sample and stage did on the way."""
