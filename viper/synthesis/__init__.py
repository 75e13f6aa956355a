"""The data synthesis module: captions with their flaws (task 1), visual operations with their edits (task 2)."""
