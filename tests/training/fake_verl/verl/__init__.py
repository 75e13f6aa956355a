"""A fake of verl for tests of what watches it: it is called as verl is, writes the files that verl writes, learns
nothing, and fails when it is told to. That the real one behaves like this is what tests with the real one show.
"""
