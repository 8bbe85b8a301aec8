"""What a search has taught: dimensions that matter, growth, rungs."""
