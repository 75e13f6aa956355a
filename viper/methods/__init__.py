"""Methods: the stages that there are, and how a recipe hangs them together."""
