"""What happened: trials, the append-only journal, its fold to a table, merge, import; ``mirror`` sends it to MLflow."""
