"""Workers that train one supernet: same networks, same weights, and after an end in between the same as without one."""

import os
import socket
from pathlib import Path
from typing import Any

import torch
from test_supernet_train import recipe, space, spec
from torch import Tensor, distributed

from coatnet_search.data.batches import Data
from coatnet_search.data.load import load_data
from coatnet_search.data.spec import DataSpec
from coatnet_search.supernet.folder import supernet_recipe
from coatnet_search.supernet.train import train_supernet
from coatnet_search.training.process_group import ProcessGroup

Found = tuple[list[dict[str, Any]], dict[str, Tensor]]


def trained(data: Data, group: ProcessGroup, checkpoint: Path | None = None, stop_after: int = 2) -> Found:
    asked = spec(epochs=2)
    rows = []
    training = train_supernet(space(), data, supernet_recipe(recipe(drop_path=0.2), asked), asked, "cpu",
                              num_images=160, checkpoint=checkpoint, group=group)  # fmt: skip
    for row, nets in training:
        rows.append({"probes": row.get("probes"), "train_loss": row["train_loss"], "conflict": row["conflict"]})
        weights = {name: value.detach().clone() for name, value in nets.named_parameters()}
        if len(rows) == stop_after:
            training.close()
            break
    return rows, weights


def _worker(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    data, group = load_data(DataSpec(name="digits")), ProcessGroup(rank, 2)
    whole = trained(data, group)
    trained(data, group, Path(out) / "checkpoints", stop_after=1)
    group.wait()  # the first writes the checkpoint
    torch.save({"whole": whole, "cut": trained(data, group, Path(out) / "checkpoints")}, f"{out}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_workers_agree_and_go_on_from_a_checkpoint_to_the_weights_of_an_unbroken_run(tmp_path):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])

    torch.multiprocessing.spawn(_worker, args=(port, str(tmp_path)), nprocs=2)

    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for rows, weights in (first["cut"], second["whole"], second["cut"]):
        assert rows == first["whole"][0]
        assert all(torch.equal(value, weights[name]) for name, value in first["whole"][1].items())
