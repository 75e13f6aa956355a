"""Held-out questions: asking them, counting right answers, comparing checkpoints, deciding on promotion."""
