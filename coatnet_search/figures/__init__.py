"""What people look at, as values and pictures: a folder a topic, and the report as one HTML page."""
