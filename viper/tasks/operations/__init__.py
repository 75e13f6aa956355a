"""Task 2: visual operations with their edits (synthesis, validation)."""
