"""The supernet: one set of weights for all networks of a space; any of them runs in it, or comes out of it."""
