"""Methods: the stages that there are, each declared once, and how a recipe hangs them together."""
