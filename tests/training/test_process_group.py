"""What workers of one training send each other."""

from pathlib import Path

import torch
from torch import distributed

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.architecture.build import seeded_build
from coatnet_search.training.process_group import ProcessGroup


def test_places_in_tables_of_attention_are_not_sent_in_each_step(tmp_path: Path) -> None:
    stage = Stage(block="T", depth=2, width=16, stride=2, head_size=8)
    model = seeded_build(Arch(image_size=16, num_classes=2, stem=Stem(width=8, stride=1), stages=(stage,)), 0)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        wrapped = ProcessGroup(0, 2).wrap(model, torch.device("cpu"))
        sent = [name for name, _ in wrapped.named_module_buffers.items()]
    finally:
        distributed.destroy_process_group()

    assert any(name.endswith("running_mean") for name in sent)
    assert not any(name.endswith(("index", "num_batches_tracked")) for name in sent)
    assert any(name.endswith("index") for name, _ in model.named_buffers())
