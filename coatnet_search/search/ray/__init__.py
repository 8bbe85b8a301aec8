"""A study's trials on a Ray cluster: scheduling, nodes, jobs, several workers. Alone in importing Ray."""
