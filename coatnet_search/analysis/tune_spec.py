"""The section ``tune`` of a study file: values of the recipe that are tried before a scaling study's runs."""

import dataclasses
from dataclasses import dataclass

from pydantic import with_config

from coatnet_search.core.checks import Misplaced
from coatnet_search.core.keys import FORM, NotNegative, Positive, Rate


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class TuneSpec:
    """A sweep over values of the recipe, for each layout and regime, before its runs; each replaces one value alone."""

    lr: tuple[Positive, ...] = ()
    """Learning rates that are tried beside the recipe's."""
    weight_decay: tuple[NotNegative, ...] = ()
    """Weight decays that are tried beside the recipe's."""
    drop_path: tuple[Rate, ...] = ()
    """Rates of stochastic depth that are tried beside the recipe's."""

    def __post_init__(self) -> None:
        if not any(self.values().values()):
            raise Misplaced("expected values of lr, weight_decay or drop_path to try", ("lr",))

    def values(self) -> dict[str, tuple[float, ...]]:
        """The values to try of each key that has any."""
        return {key: values for key, values in dataclasses.asdict(self).items() if values}
