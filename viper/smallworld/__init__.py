"""A drawn world with exact truth, small enough for a model of a million parameters and a machine without a GPU."""

#: Its model and its held-out questions, as specifications name them.
STARTER, QUESTIONS = "smallworld:starter", "smallworld:questions"
