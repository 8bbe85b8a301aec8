"""Where images come from: digits, CIFAR, folders, parquet files; which file is what, and what its labels mean."""
