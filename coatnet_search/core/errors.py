"""The errors that a user can cause, with their exit codes."""

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_ENVIRONMENT = 3
EXIT_SOME_TRIALS_FAILED = 4
EXIT_INTERRUPTED = 130


class InputError(ValueError):
    """A mistake in what the user gave (a file, a name, an option): one line that says what to do. Exit code 2."""

    exit_code = EXIT_BAD_INPUT


class SetupError(RuntimeError):
    """The input is fine, the machine is not: a GPU, a file or a server that is not there. Exit code 3."""

    exit_code = EXIT_ENVIRONMENT


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """One line for a name that is not in a menu: ``no strategy named 'tpee'; did you mean 'tpe'? Known: ...``."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"no {kind} named {str(name)!r}{hint} Known: {', '.join(names) or 'none'}"
