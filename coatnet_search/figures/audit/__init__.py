"""The audit of a supernet: inherited scores against trainings alone."""
