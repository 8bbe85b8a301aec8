"""Training speed: our loop beside a bare PyTorch loop, and the loaders alone beside torchvision's and timm's.

    python benchmarks/training.py                                     # digits
    python benchmarks/training.py --parquet FOLDER --rounds 5         # CIFAR-10 as parquet
    python benchmarks/training.py --jpegs FOLDER                      # 224-pixel JPEG files, a folder a class

The bare loop does what a step needs and nothing else: the same model, recipe, augmented batches and optimiser groups.
Both take turns within a round, so that a machine whose pace drifts disturbs the ratio little; the median counts. On a
machine that has other work, ``--clock cpu`` counts processor time, of loops and of loaders without worker processes.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from timm.data import create_dataset, create_loader
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.architecture.build import seeded_build
from coatnet_search.data import memory
from coatnet_search.data.batches import Data
from coatnet_search.data.load import load_data
from coatnet_search.data.spec import DataSpec
from coatnet_search.training import loop
from coatnet_search.training.budget import Budget
from coatnet_search.training.heap import keep_memory
from coatnet_search.training.prepare import parameter_groups, prepared
from coatnet_search.training.recipe import Recipe, make_recipe, schedule

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def network(data: Data, width: int) -> Arch:
    """Two convolution stages and one of attention, for small images."""
    last = 1 if data.image_size < 16 else 2
    stages = (
        Stage(block="C", depth=2, width=width, stride=1),
        Stage(block="C", depth=2, width=2 * width, stride=2),
        Stage(block="T", depth=2, width=4 * width, stride=last, head_size=width),
    )
    return Arch(image_size=data.image_size, in_channels=data.in_channels, num_classes=data.num_classes,
                stem=Stem(depth=1, width=width, stride=1), stages=stages)  # fmt: skip


def ours(data: Data, arch: Arch, recipe: Recipe, device: torch.device, images: int) -> float:
    """Images a second of the second epoch, as the loop reports it: evaluation is not in it."""
    model = seeded_build(arch, 0, init=recipe.init).to(device)
    rows = list(loop.train(model, data, recipe, Budget(epochs=2, num_images=images), device))
    return rows[-1]["train_images_per_s"]


def bare(data: Data, arch: Arch, recipe: Recipe, device: torch.device, images: int) -> float:
    """The same by hand."""
    model = prepared(seeded_build(arch, 0, init=recipe.init), recipe, device)
    groups = parameter_groups(model, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, recipe.beta2), fused=True)
    regime = data.regime(images)
    steps = data.num_steps(recipe.batch_size, images)
    rate = schedule(recipe, epochs=2, steps_per_epoch=steps)
    bfloat16 = device.type == "cuda"
    for epoch in (1, 2):
        model.train()
        batches = data.train_batches(batch_size=recipe.batch_size, seed=0, epoch=epoch, recipe=recipe, device=device,
                                     regime=regime)  # fmt: skip
        synchronise(device)
        begin = loop.time.perf_counter()
        for step, (pixels, labels) in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = rate((epoch - 1) * steps + step)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                logits = model(pixels)
            loss = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
        synchronise(device)
        spent = loop.time.perf_counter() - begin
    return steps * recipe.batch_size / spent


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(title: str, one: Callable[[], float], others: dict[str, Callable[[], float]], rounds: int) -> None:
    """Prints the median speed of each, and the median of the rounds' ratios of ours to each other one."""
    found: dict[str, list[float]] = {name: [] for name in ("ours", *others)}
    for _ in range(rounds):
        for name, run in {"ours": one, **others}.items():
            found[name].append(run())
    print(f"\n{title}, images/s, median of {rounds} rounds")
    for name, speeds in found.items():
        ratios = sorted(mine / theirs for mine, theirs in zip(found["ours"], speeds, strict=True))
        spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
        print(f"  {name:12} {statistics.median(speeds):10,.0f}   ours/this {statistics.median(ratios):.3f} ({spread})")


# --- loaders alone ---------------------------------------------------------------------------------------------------


def drained(batches: Iterable[Any], count: int) -> float:
    """Images a second of ``count`` images, after a first batch."""
    flow: Iterator[Any] = iter(batches)
    first = next(flow)[0]
    begin, seen = loop.time.perf_counter(), 0
    for images, *_ in flow:
        seen += len(images)
        if seen >= count:
            break
    del first
    return seen / (loop.time.perf_counter() - begin)


def own_loader(data: Data, recipe: Recipe, side: int, count: int) -> float:
    """Our training batches: decoded, augmented, normalised."""
    regime = data.regime(min(data.num_train, count + 2 * recipe.batch_size))
    return drained(data.train_batches(batch_size=recipe.batch_size, seed=0, epoch=1, recipe=recipe,
                                      device=torch.device("cpu"), regime=regime, image_size=side), count)  # fmt: skip


def torchvision_loader(items: Any, batch_size: int, workers: int, count: int) -> float:
    return drained(DataLoader(items, batch_size, shuffle=True, num_workers=workers), count)


def timm_loader(items: Any, side: int, batch_size: int, workers: int, count: int, flip: bool) -> float:
    """timm's own pipeline of training, on the CPU."""
    loader = create_loader(items, (3, side, side), batch_size, is_training=True, use_prefetcher=False,
                           num_workers=workers, hflip=0.5 if flip else 0.0, color_jitter=None, scale=(0.08, 1.0),
                           interpolation="bilinear", persistent_workers=False)  # fmt: skip
    return drained(loader, count)


class Decoded:
    """The images of a parquet file as Pillow images, decoded when they are asked for: what ``datasets`` would give."""

    def __init__(self, path: Path, transform: Any = None) -> None:
        import pyarrow.parquet as pq  # noqa: PLC0415

        table = pq.read_table(sorted(path.glob("train*.parquet"))[0])
        self.rows, self.labels = table["image"].combine_chunks().field("bytes"), table["label"].to_pylist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        import io  # noqa: PLC0415

        from PIL import Image  # noqa: PLC0415

        image = Image.open(io.BytesIO(self.rows[place].as_py())).convert("RGB")
        return (self.transform(image) if self.transform else image), self.labels[place]


def transforms(side: int, crops: bool) -> Any:
    """torchvision's, with the same changes as ours."""
    place = v2.RandomResizedCrop(side, antialias=True) if crops else v2.RandomCrop(side, 4, padding_mode="reflect")
    return v2.Compose([place, v2.RandomHorizontalFlip(), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True),
                       v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])  # fmt: skip


def loops(name: str, data: Data, given: argparse.Namespace) -> None:
    """Our loop beside the bare one."""
    device = torch.device(given.device)
    recipe = make_recipe({"name": "small-images", "shift": 1 if name == "digits" else 4})
    images, arch = min(given.images, data.num_train), network(data, given.width)
    compare(f"a training loop on {name}, {device}", lambda: ours(data, arch, recipe, device, images),
            {"bare loop": lambda: bare(data, arch, recipe, device, images)}, given.rounds)  # fmt: skip


def parquet_loaders(data: Data, given: argparse.Namespace) -> None:
    """Loaders of small images that lie in parquet files."""
    recipe, side, count = make_recipe({"name": "small-images"}), data.image_size, given.images
    size, path = recipe.batch_size, given.parquet
    compare("a loader of parquet files", lambda: own_loader(data, recipe, side, count), {
        "torchvision": lambda: torchvision_loader(Decoded(path, transforms(side, False)), size, 0, count),
        "timm": lambda: timm_loader(Decoded(path), side, size, 0, count, True),
    }, given.rounds)  # fmt: skip


def jpeg_loaders(given: argparse.Namespace) -> None:
    """Loaders of large images that are decoded on the way: they are streamed, whatever their number."""
    path, workers, count, side = given.jpegs, given.workers, given.images, 224
    memory.LIMIT_BYTES = 0  # a data set of this kind does not fit memory
    data = load_data(DataSpec(name="image_folder", path=str(path), workers=workers), image_size=side)
    recipe = make_recipe({"name": "paper-imagenet", "batch_size": 64, "randaugment_layers": 0})
    compare("a loader of JPEG files at 224 pixels", lambda: own_loader(data, recipe, side, count), {
        "torchvision": lambda: torchvision_loader(ImageFolder(path, transforms(side, True)), 64, workers, count),
        "timm": lambda: timm_loader(create_dataset("", str(path)), side, 64, workers, count, True),
    }, given.rounds)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parquet", type=Path, help="a folder with train*.parquet of 32-pixel images")
    parser.add_argument("--jpegs", type=Path, help="a folder of large images, a folder a class")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4096, help="an epoch, or of a loader, so many images")
    parser.add_argument("--width", type=int, default=16, help="of the network's first stage")
    parser.add_argument("--workers", type=int, default=1, help="processes of each loader of JPEG files")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time of this process")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    if given.clock == "cpu" and given.jpegs and given.workers:
        parser.error("--clock cpu counts this process alone: give --workers 0")
    loop.time = SimpleNamespace(perf_counter=CLOCKS[given.clock])  # the loop reports its speed by this clock too
    keep_memory(torch.device(given.device))  # for whichever comes first
    loops("digits", load_data(DataSpec(name="digits")), given)
    if given.parquet:
        data = load_data(DataSpec(name="parquet", path=str(given.parquet)))
        loops("parquet", data, given)
        parquet_loaders(data, given)
    if given.jpegs:
        jpeg_loaders(given)


if __name__ == "__main__":
    main()
