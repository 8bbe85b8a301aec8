"""Finds a data set's training, validation and test folders, and the level at which its classes lie.

By names where folders have them (``split_names.py``), through folders that wrap one other; and whatever the names, what
looks like splits taken for classes is refused.
"""

from collections.abc import Collection
from dataclasses import dataclass

from coatnet_search.core.errors import InputError
from coatnet_search.data.sources.listing import IMAGE_ENDINGS, Folder, passed_over, shown
from coatnet_search.data.sources.split_names import KINDS, Split, says_nothing, split_of, splits_of

MAY_BE_CLASSES = ("dev", "eval", "evaluation")  # where there is no training folder beside them
SHOWN = 4  # names in a message


@dataclass(frozen=True)
class Layout:
    """``train`` holds the classes' folders; ``val`` and ``test`` are the folders named so, None where there are none.

    ``findings``: which folder is what and what was passed over, as sentences.
    """

    train: Folder
    val: Folder | None
    test: Folder | None
    findings: tuple[str, ...]


def find_layout(root: Folder) -> Layout:
    """Raises InputError where there are no images, or where folders could be splits as well as classes."""
    if not root.count:
        _refuse_without_training(root, splits_of([folder.name for folder in root.folders]))
        raise InputError(f"data.path: no images below {shown(root.path)}; expected CLASS/IMAGE with "
                         f"{', '.join(IMAGE_ENDINGS)}{_aside(root)}")  # fmt: skip
    top = _unwrapped(root)
    named = splits_of([folder.name for folder in top.folders])
    train, val, test = (_one(top, named, split) for split in KINDS)
    if train is None or not train.filled:
        _refuse_without_training(top, named)
        _refuse_like_named(top)
        return Layout(top, None, None, _findings(root, top, {}))
    others = [folder for folder in top.filled if split_of(folder.name)[0] is None]
    if val is None and test is None and any(folder.files for folder in others):
        raise InputError(
            f"data.path: {shown(top.path)} holds {train.name}/ with folders of images beside {_some(others)} with "
            f"images: is {train.name}/ the training split or a class? Give {shown(train.path)} itself, or move the "
            "others away"
        )
    inside = unwrap(train)
    _refuse_like_named(inside)
    splits: dict[Split, Folder] = {"train": inside}
    splits |= {"val": val} if val else {}
    splits |= {"test": test} if test else {}
    return Layout(inside, val, test, _findings(root, top, splits))


def labelled(folder: Folder, class_names: Collection[str]) -> Folder | None:
    """The level of a validation or test folder that holds a folder a class; None where its images lie in none, and so
    have no labels."""
    level = unwrap(folder, class_names)
    filled = level.filled
    if len(filled) == 1 and filled[0].name not in class_names and says_nothing(filled[0].name):
        return None
    return level if filled else None


def unwrap(folder: Folder, known: Collection[str] = ()) -> Folder:
    """The folder, or the one that it wraps: the only one in it with images, where that holds folders in its turn and is
    no known class."""
    while (inner := _wrapped(folder)) and inner.name not in known:
        folder = inner
    return folder


def _unwrapped(root: Folder) -> Folder:
    """As ``unwrap``, but a folder that is named as a split is not opened."""
    names = {folder.name for folder in root.filled}
    while not splits_of(names):
        inner = _wrapped(root)
        if inner is None:
            break
        root, names = inner, {folder.name for folder in inner.filled}
    return root


def _wrapped(folder: Folder) -> Folder | None:
    filled = folder.filled
    return filled[0] if not folder.files and len(filled) == 1 and filled[0].filled and not filled[0].files else None


def _one(top: Folder, named: dict[str, Split], split: Split) -> Folder | None:
    """The folder of a split, among several the one that is named by its word alone. Raises InputError."""
    found = [folder for folder in top.filled if named.get(folder.name) == split]
    if split == "train":  # a class may be named train, with images and no folders in it
        found = [folder for folder in found if folder.filled] or found
    if len(found) > 1:
        exact = [folder for folder in found if folder.name.lower() == split]
        if len(exact) != 1:
            raise InputError(f"data.path: {shown(top.path)} holds {_some(found)}: which one has the {KINDS[split]} "
                             f"images? Name it {split}, and move the others away")  # fmt: skip
        found = exact
    return found[0] if found else None


def _refuse_without_training(top: Folder, named: dict[str, Split]) -> None:
    closed = [folder.name for folder in top.folders if named.get(folder.name) in ("val", "test")]
    flat = [folder.name for folder in top.filled if named.get(folder.name) == "train"]
    if closed and flat:
        raise InputError(f"data.path: {shown(top.path)}: {flat[0]}/ holds images but no folder a class; expected "
                         f"{flat[0]}/CLASS/IMAGE")  # fmt: skip
    closed = [name for name in closed if name.lower() not in MAY_BE_CLASSES]
    if closed:
        raise InputError(f"data.path: {shown(top.path)} has {closed[0]}/ but no train/; name the training folder train")


def _refuse_like_named(top: Folder) -> None:
    """Raises InputError where most "classes" hold few images or none, but folders that are named alike."""
    groups = {folder.name: {inner.name.casefold() for inner in folder.filled} for folder in top.filled
              if 2 * len(folder.files) < folder.count}  # fmt: skip
    owners: dict[str, list[str]] = {}
    for group, names in groups.items():
        for name in names:
            owners.setdefault(name, []).append(group)
    like = {name: found for name, found in owners.items() if len(found) > 1}
    several = any(len(groups[group]) > 1 for found in like.values() for group in found)
    alike = any(2 * sum(name in like for name in names) > len(names) for names in groups.values())
    if not (several and alike and 2 * len(groups) > len(top.filled)):
        return
    some = _some([folder for folder in top.filled if folder.name in groups])
    shared = ", ".join(sorted(like)[:SHOWN])
    if all(split_of(name)[0] for name in like):
        raise InputError(f"data.path: {shown(top.path)}: {some} each hold {shared}; splits go above the classes: "
                         "train/CLASS/IMAGE, test/CLASS/IMAGE")  # fmt: skip
    raise InputError(
        f"data.path: {shown(top.path)}: {some} hold the same folders ({shared}): if they are splits, name them train, "
        "val and test; if they are classes, put their images into them directly"
    )


def _findings(root: Folder, top: Folder, splits: dict[Split, Folder]) -> tuple[str, ...]:
    found: list[str] = []
    if splits:
        places = [f"{KINDS[split]} images in {_place(root, folder)} ({folder.count:,})"
                  for split, folder in splits.items()]  # fmt: skip
        if "val" not in splits:
            places.insert(1, "validation images held out of these")
        if "test" in splits:
            places[-1] += ", which only full training opens"
        found.append("; ".join(places))
    elif top is not root:
        found.append(f"the classes lie in {_place(root, top)}")
    if splits:
        names = {folder.path for folder in splits.values()}
        extra = [f"{folder.name}/ ({folder.count:,} images)" for folder in top.filled
                 if not any(path.is_relative_to(folder.path) for path in names)]  # fmt: skip
        found += [f"passed over: {', '.join(extra)}, no split by name"] if extra else []
    outside = len(top.files) + (len(splits["train"].files) if splits else 0)
    found += [f"passed over: {outside:,} images outside of the folders"] if outside else []
    passed = passed_over(root.all_passed())
    return (*found, passed) if passed else tuple(found)


def _place(root: Folder, folder: Folder) -> str:
    return f"{shown(folder.path.relative_to(root.path))}/"


def _some(folders: Collection[Folder]) -> str:
    names = [f"{folder.name}/" for folder in folders]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _aside(folder: Folder) -> str:
    passed = passed_over(folder.all_passed())
    return f"; {passed}" if passed else ""
