"""People look before they read: pure functions from the record's frame to figures, pictures and one page."""
