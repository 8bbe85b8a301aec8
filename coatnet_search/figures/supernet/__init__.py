"""A supernet's training and what it saves."""
