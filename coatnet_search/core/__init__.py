"""What everything stands on: errors, names and units of numbers, checked YAML, storage, printing. No torch."""
