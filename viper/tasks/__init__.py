"""What a model learns from: a folder for each task, and what the tasks share."""
