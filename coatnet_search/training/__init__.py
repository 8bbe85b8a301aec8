"""One network on one device: recipe, training loop, checkpoints, guards. PLUGIN folder ``measurements``."""
