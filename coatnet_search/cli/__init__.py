"""The command line: its verbs, their options, exit codes; ``commands`` has a file a verb."""
