"""Around one iteration: what is known before it is frozen, freezing, what is there of it, what is recorded of it."""
