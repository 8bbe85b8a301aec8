"""CIFAR-10 (Krizhevsky 2009) from torchvision's files: 50,000 training images of 32x32 pixels, ten classes."""

from typing import TYPE_CHECKING

from torchvision.datasets import CIFAR10

from coatnet_search.data.source import Source
from coatnet_search.data.sources.published import open_published

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def open_source(spec: "DataSpec") -> Source:
    return open_published(spec, CIFAR10, CLASSES, 50_000)


def open_test(spec: "DataSpec", class_names: tuple[str, ...]) -> Source:
    return open_published(spec, CIFAR10, CLASSES, 10_000, train=False)
