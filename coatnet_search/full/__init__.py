"""After the choice: full training (alone in opening the test split), prediction, export."""
