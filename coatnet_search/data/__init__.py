"""PLUGIN images in: data sets, index, splits, batches. A data set is a file in ``sources`` and a line here.

A data set's module defines ``open_source(spec) -> Source``, its training split (see ``source.py``): labels, class
names, and images as encoded files or as an array; and ``open_test(spec, class_names)``, the same of its test split, or
None. All else is done here for all of them: the val part is carved from train, images are checked, hashed and, where
they fit, decoded once per machine. Only full training opens the test split (``test_split.py``).
"""

DATASETS = {
    "digits": "coatnet_search.data.sources.digits",
    "parquet": "coatnet_search.data.sources.parquet",
    "image_folder": "coatnet_search.data.sources.image_folder",
    "cifar10": "coatnet_search.data.sources.cifar10",
    "cifar100": "coatnet_search.data.sources.cifar100",
}
