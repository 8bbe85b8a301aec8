"""A file a verb: ``main(given) -> exit code``, where ``given`` is what ``cli.parse`` read. Imported on use."""
