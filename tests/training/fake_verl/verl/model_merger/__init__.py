"""Converts fake shards."""
