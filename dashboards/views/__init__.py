"""A page a file: it shows what the summaries and the figures compute, and computes nothing itself."""
