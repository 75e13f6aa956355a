"""What made the small world's assets, and makes its starter."""
