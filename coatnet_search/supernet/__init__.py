"""The supernet: one set of weights for all networks of a space; any of them runs in it, or comes out of it."""

from coatnet_search.supernet.blueprint import memory_needed
from coatnet_search.supernet.files import load_supernet, save_supernet
from coatnet_search.supernet.memory import Memory
from coatnet_search.supernet.parts import Branch
from coatnet_search.supernet.supernet import Supernet

__all__ = ["Branch", "Memory", "Supernet", "load_supernet", "memory_needed", "save_supernet"]
