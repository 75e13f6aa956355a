"""Of the fake Ray."""
