"""A search: what it found in words, the front, growth and learning curves."""
