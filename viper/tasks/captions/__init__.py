"""Task 1: captions with their flaws (synthesis, validation)."""
