"""PLUGIN what is learned from: one file and one line in ``DATASETS`` each.

A data set's module defines ``open_source(spec) -> Source``, its training split (see ``source.py``): labels, class
names, and images as encoded files or as an array; and ``open_test(spec, class_names)``, the same of its test split, or
None. All else is done here for all of them: the val part is carved from train, images are checked, hashed and, where
they fit, decoded once per machine. Only full training opens the test split (``test_split.py``).
"""

DATASETS = {
    "digits": "coatnet_search.data.digits",
    "parquet": "coatnet_search.data.parquet",
    "image_folder": "coatnet_search.data.image_folder",
    "cifar10": "coatnet_search.data.cifar10",
    "cifar100": "coatnet_search.data.cifar100",
}
