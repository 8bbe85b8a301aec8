"""A scaling study: its answers in words and as figures."""
