"""Takes networks out of a trained supernet, recalibrates their norms, and scores them on validation."""

import torch
from torch import Tensor

from coatnet_search.architecture.arch import Candidate
from coatnet_search.architecture.build import CoAtNet, build
from coatnet_search.data.batches import Data
from coatnet_search.supernet.folder import Supernets
from coatnet_search.supernet.recalibrate import BATCH, calibration_numbers, recalibrate
from coatnet_search.training.loop import Row, val_row
from coatnet_search.training.scoring import Scorer


class InheritedNetworks:
    """A trained supernet with the images that its networks are made ready on. Nothing here changes the shared weights,
    so candidates may be asked for in any order, and one that is asked for twice is the same to the bit.

    ``regime``: numbers of the training images; ``images``: how many of them the statistics are from.
    """

    def __init__(self, nets: Supernets, data: Data, regime: Tensor, scorer: Scorer, images: int) -> None:
        self.nets, self.data, self.scorer = nets, data, scorer
        self._numbers = calibration_numbers(regime, images)

    def network(self, candidate: Candidate) -> CoAtNet:
        """The candidate's network alone, ready for use. Raises InputError where it is not one of the space."""
        arch, state = self.nets.extract(candidate)
        model = build(arch, state).to(self.scorer.device)
        if self.scorer.recipe.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batches = self.data.plain_batches(self._numbers, batch_size=BATCH, device=self.scorer.device,
                                          whole=not self.scorer.recipe.centre_crop)  # fmt: skip
        recalibrate(model, batches, self.scorer)
        return model

    def scores(self, model: CoAtNet, num_images: int | None = None) -> Row:
        """``val_row`` of the validation images, or the first ``num_images`` of them."""
        numbers = torch.from_numpy(self.data.val_numbers)[:num_images]
        batches = self.data.plain_batches(numbers, batch_size=BATCH, device=self.scorer.device,
                                          whole=not self.scorer.recipe.centre_crop)  # fmt: skip
        return val_row(self.scorer.scores(model, batches))
