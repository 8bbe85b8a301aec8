"""The record's events -> MLflow, at least once, by a process that no search waits for."""
