"""All networks that may be chosen: the file, what is legal, counting, sampling, networks at a cost."""
