"""What a run did, for people: a plain-text table and a static page, both read from the object store alone."""
