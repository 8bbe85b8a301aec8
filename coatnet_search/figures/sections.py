"""Makes the sections of a report, each within its time: what fails or takes longer is left out, and said."""

from collections.abc import Callable
from typing import TypeVar

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.time_limit import OutOfTime, time_limit

T = TypeVar("T")
BUDGET_S = 120.0  # of one section: the slowest of those that end take some ten seconds


class Sections:
    """``left_out``: a sentence for each section that could not be made, with the reason."""

    def __init__(self, budget_s: float = BUDGET_S) -> None:
        self._budget_s = budget_s
        self.left_out: list[str] = []

    def make(self, name: str, make: Callable[[], T], instead: Callable[[str], T]) -> T:
        """What ``make`` gives, or ``instead`` of it, which is told the reason. What a user asked for wrongly and a
        machine that lacks something (InputError, SetupError, OSError) are raised as they are."""
        try:
            with time_limit(self._budget_s):
                return make()
        except OutOfTime:
            reason = f"it took longer than {self._budget_s:g} s"
        except (InputError, SetupError, OSError):
            raise
        except Exception as error:
            first = " ".join(str(error).split())[:200]
            reason = f"{type(error).__name__}: {first}" if first else type(error).__name__
        sentence = f"Left out of this report: {name} ({reason})."
        if sentence not in self.left_out:
            self.left_out.append(sentence)
        return instead(reason)
