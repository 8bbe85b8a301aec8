"""A trained network -> its model card in Markdown: data, recipe, scores, where a search found it, limits."""

from collections.abc import Mapping
from typing import Any

from coatnet_search.core.document import one_line
from coatnet_search.core.quantities import never_recognised, show
from coatnet_search.full.bundle import Bundle, Sight
from coatnet_search.full.scores import single_seeds

SPLITS = {"val": "validation", "test": "test"}


def model_card(bundle: Bundle) -> str:
    """The text of ``README.md`` beside an exported network. What is not known of it is not claimed."""
    about = bundle.about
    parts = [
        _title(bundle),
        _use(bundle),
        _measures(about),
        _confusion(bundle),
        _data(about),
        _recipe(about),
        _search(about),
        _limits(about),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(bundle: Bundle) -> str:
    about, sight = bundle.about, bundle.sight
    cost = f"{show('params', about.get('params'))} parameters, {show('macs', about.get('macs'))} multiply-adds an image"
    kind = (
        f"Timm's {bundle.network.timm}" if bundle.network.timm else f"A CoAtNet, stages {bundle.network.shape.layout}"
    )
    return (
        f"# {bundle.network.name}\n\n{kind}: an image classifier for {len(bundle.class_names)} classes. {cost}, "
        f"{sight.image_size}x{sight.image_size} pixels, {sight.in_channels} channels."
    )


def _use(bundle: Bundle) -> str:
    sight = bundle.sight
    mean, std = (", ".join(f"{value / 255:.4f}" for value in values) for values in (sight.mean, sight.std))
    register = "import coatnet_search.timm_bridge  # tells timm of this network\n" if not bundle.network.timm else ""
    return f"""## Use

    coatnet-search predict FOLDER photo.jpg

```python
import timm
{register}model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
```

Images: central square resized to {sight.stored} pixels (bilinear), its middle {sight.shown}x{sight.shown} cut out and
seen at {sight.image_size}x{sight.image_size}, values in 0..1 normalised by mean {mean} and standard deviation {std}.
{_values(sight)}""".rstrip()


def _values(sight: Sight) -> str:
    """How deep values and transparent pixels become what the network sees."""
    said = ""
    if sight.value_range:
        said += " Values of images of more than 8 bits: {:g} becomes 0, {:g} becomes 1.".format(*sight.value_range)
    if sight.background is not None:
        said += f" Transparent pixels show grey {sight.background} of 255."
    return said.strip()


def _measures(about: Mapping[str, Any]) -> str:
    seeds, means = about.get("seeds") or [], about.get("means") or {}
    lines = []
    for split, title in SPLITS.items():
        if not seeds or split not in seeds[0]:
            continue
        first, top1 = seeds[0][split], means[f"{split}_top1"]
        several = len(seeds) > 1
        low, high = (top1["low"], top1["high"]) if several else (first["top1_low"], first["top1_high"])
        top5, loss, calibration = (means[f"{split}_{name}"]["mean"] for name in ("top5", "loss", "calibration_error"))
        balanced = means.get(f"{split}_balanced_accuracy")
        lines.append(
            f"| {title} | {first['num_images']:,} | {100 * top1['mean']:.2f} % ({100 * low:.2f} to {100 * high:.2f}) | "
            f"{_percent(balanced)} | {100 * top5:.2f} % | {loss:.4f} | {calibration:.4f} |"
        )
    if not lines:
        return ""
    if len(seeds) > 1:
        alone = single_seeds([row["val"]["top1"] for row in seeds if "val" in row])
        over = (f"Means over {len(seeds)} seeds, with intervals of what seeds and images leave open"
                f"{f' (validation, each seed: {alone})' if alone else ''}; the weights here are seed "
                f"{seeds[0]['seed']}'s.")  # fmt: skip
    else:
        over = "One seed; the interval (Wilson, 95 %) is that of the number of images alone."
    head = ("| split | images | top-1 (95 %) | balanced accuracy | top-5 | loss | calibration error |\n"
            "| --- | --- | --- | --- | --- | --- | --- |")  # fmt: skip
    over += "".join(f"\n\n{text}." for text in unrecognised(about))
    speed = about.get("throughput_images_per_s")
    fast = f"\n\nInference: {show('throughput_images_per_s', speed)} on {about.get('device')}." if speed else ""
    note = f"\n\n{about['test_note'][0].upper()}{about['test_note'][1:]}." if about.get("test_note") else ""
    return "## Measures\n\n" + "\n".join([head, *lines]) + f"\n\n{over}{note}{fast}"


def _percent(mean: Mapping[str, Any] | None) -> str:
    return "–" if mean is None else f"{100 * mean['mean']:.2f} %"


def unrecognised(about: Mapping[str, Any]) -> list[str]:
    """The classes of which the first seed's network recognises no image, as a sentence for each split, without its
    full stop."""
    first = (about.get("seeds") or [{}])[0]
    found = {title: first.get(split, {}).get("never_recognised") or [] for split, title in SPLITS.items()}
    return [f"{never_recognised(len(names), about['classes'], names)} ({title})" for title, names in found.items()
            if names]  # fmt: skip


def _confusion(bundle: Bundle) -> str:
    """The matrix of the test split, or of validation, where the classes are few."""
    first = (bundle.about.get("seeds") or [{}])[0]
    split = next((split for split in ("test", "val") if first.get(split, {}).get("confusion")), None)
    if split is None:
        return ""
    names = [_cell(name) for name in bundle.class_names]
    lines = [["true class", *names], ["---"] * (len(names) + 1)]
    lines += [[name, *map(str, row)] for name, row in zip(names, first[split]["confusion"], strict=True)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## Confusion\n\nImages of the {SPLITS[split]} split by true class (rows) and answer (columns).\n\n{table}"


def _cell(text: str) -> str:
    """A name as a table of Markdown may hold it."""
    return one_line(text).replace("|", "\\|").replace("<", "&lt;")


def _data(about: Mapping[str, Any]) -> str:
    if "num_train" not in about:
        return ""
    tests = f", {about['num_test']:,} for the test" if about.get("num_test") else ""
    return (
        f"## Data\n\n{about['data']['name']}: {about['num_train']:,} images to train, {about['num_val']:,} to validate"
        f"{tests}, {about['classes']} classes. Digest of images, labels and split: `{about['data_digest']}`."
    )


def _recipe(about: Mapping[str, Any]) -> str:
    stages = about.get("stages") or []
    texts = []
    for number, stage in enumerate(stages, 1):
        values = ", ".join(f"{key} {value}" for key, value in stage["recipe"].items() if key != "name")
        texts.append(f"{number}. `{stage['recipe']['name']}` at {stage['image_size']} pixels: {values}")
    start = f"\n\nIt started from the weights `{about['weights']}`." if about.get("weights") else ""
    return "## Recipe\n\n" + "\n".join(texts) + start if texts else ""


def _search(about: Mapping[str, Any]) -> str:
    found = about.get("predicted") or {}
    if not found:
        return ""
    against = about.get("against_prediction")
    told = (f" The search saw {show('val_top1', against['search_val_top1'])} validation accuracy, full training gives "
            f"{show('val_top1', against['obtained_val_top1'])}.") if against else ""  # fmt: skip
    return f"## Search\n\nFound by the study {found.get('study')}, trial {found.get('trial')}.{told}"


def _limits(about: Mapping[str, Any]) -> str:
    return (
        "## Limits\n\nIt knows the classes and the kind of images that it was trained on, and gives every image one of "
        f"its classes. Made with CoAtNet Search {about.get('version', '')}, torch {about.get('torch', '')}."
    )
