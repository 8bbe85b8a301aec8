"""Two studies' fronts beside each other."""
