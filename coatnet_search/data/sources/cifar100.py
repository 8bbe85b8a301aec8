"""CIFAR-100 (Krizhevsky 2009) from torchvision's files: 50,000 training images of 32x32 pixels, a hundred classes."""

from typing import TYPE_CHECKING

from torchvision.datasets import CIFAR100

from coatnet_search.data.source import Source
from coatnet_search.data.sources.published import open_published

if TYPE_CHECKING:
    from coatnet_search.data.spec import DataSpec

# the fine labels, in the order of the files
# fmt: off
CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
    "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
    "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)
# fmt: on


def open_source(spec: "DataSpec") -> Source:
    return open_published(spec, CIFAR100, CLASSES, 50_000)


def open_test(spec: "DataSpec", class_names: tuple[str, ...]) -> Source:
    return open_published(spec, CIFAR100, CLASSES, 10_000, train=False)
