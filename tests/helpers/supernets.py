"""What the tests look at inside a supernet: a branch's parameters, a candidate's slices."""

from torch import nn

from coatnet_search.space.space import Candidate
from coatnet_search.supernet.network import Supernet
from coatnet_search.supernet.parts import Branch
from coatnet_search.supernet.slices import Cut


def parameters_of(net: Supernet, branch: Branch) -> dict[str, nn.Parameter]:
    """A branch's shared parameters, by their names in the supernet."""
    path = ".".join(branch.path)
    return {f"{path}.{name}": value for name, value in net.get_submodule(path).named_parameters()}


def slices_of(net: Supernet, candidate: Candidate) -> dict[str, Cut]:
    """By name in the supernet, each shared tensor that the candidate's network uses, and which slice of it."""
    return {
        ".".join((*place, name)): cut
        for _, place, step in net.network(candidate).steps
        for name, _, cut in step.named_slices()
    }
