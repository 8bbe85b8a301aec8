"""What one training may spend: epochs, images, image size, and the seeds it runs with. A plain value, no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a trial may spend: ``num_images`` None is all of them, ``image_size`` None is the architecture's own."""

    epochs: int
    num_images: int | None = None
    image_size: int | None = None
    seed: int = 0
    draw: int = 0
