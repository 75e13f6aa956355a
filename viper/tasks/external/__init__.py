"""Supplied samples: verifiable questions of somebody else's."""
