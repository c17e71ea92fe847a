"""`gan-ray data check`: is this data set usable, and can a figure measured on it be believed?"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.items import Item, Labels, each
from gan_ray.data.kinds import number_kinds, refuse_unknown
from gan_ray.data.masks import binary
from gan_ray.data.sources import Parts, open_source, shared_patients, training_items
from gan_ray.errors import ConfigError, DataError

_NAMED = 5


@dataclass(frozen=True)
class _Look:
    """What one look at an image tells."""

    item: Item
    shape: tuple[int, ...]
    dtype: str
    digest: str
    constant: bool


@dataclass(frozen=True)
class _Findings:
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def check(data: DataConfig, *, with_labels: bool = False) -> dict[str, Any]:
    """Look at every image once and report what is there, as a dict ready for JSON.

    Keys: `ok`; `source`; `grouped_by`; `splits`, by part: images, groups, dtypes, sizes, and with
    labels also sublabels and masks; `held_out`: images for selection and for calibration;
    `classes`: training normals of each class that the source tells, where they are asked for;
    `streams`; `ignored`; `warnings` and `errors`: sentences that end with what to do. `ok` is
    false when there are errors: files that cannot be used, patients or equal images in both
    training and test. Test labels are read only `with_labels`, and feed nothing.

    Raises:
        ConfigError: settings that cannot work.
        DataError: there is nothing to look at.
    """
    source = open_source(data)
    findings = _Findings()
    labels = source.labels() if with_labels else None
    training, test = source.training(), source.test()
    parts = {**training, **_test_parts(test, labels)}
    parts = {part: items for part, items in parts.items() if items}
    looks = {part: _look_at(items, findings) for part, items in parts.items()}
    splits = {part: _counts(parts[part], looks[part]) for part in parts}
    if labels is not None and "test/abnormal" in splits:
        _add_labels(splits, test, labels, findings)
    findings.warnings.extend(source.notes)
    _find_oddities(looks, findings)
    _find_shared_groups(parts, findings)
    _find_equal_images(looks, findings)
    held_out, classes = _held_out(training, data, findings)
    return {
        "ok": not findings.errors,
        "source": data.root or data.source,
        "grouped_by": source.grouped_by,
        "splits": splits,
        "held_out": held_out,
        "classes": classes,
        "streams": [part.removeprefix("train/") for part in parts if part.startswith("train/")],
        "ignored": list(source.ignored),
        "warnings": findings.warnings,
        "errors": findings.errors,
    }


def _test_parts(items: Sequence[Item], labels: Labels | None) -> dict[str, list[Item]]:
    if labels is None:
        return {"test": list(items)}
    parts: dict[str, list[Item]] = {"test/normal": [], "test/abnormal": []}
    for item, label in zip(items, labels.labels, strict=True):
        parts["test/abnormal" if label else "test/normal"].append(item)
    return parts


def _look_at(items: Sequence[Item], findings: _Findings) -> list[_Look]:
    def look(item: Item) -> _Look:
        _, pixels = item.load()
        digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape}".encode())
        digest.update(np.ascontiguousarray(pixels).data)
        constant = bool(pixels.min() == pixels.max())
        return _Look(item, pixels.shape, str(pixels.dtype), digest.hexdigest(), constant)

    seen = list(each(items, look))
    findings.errors.extend(str(fault) for fault in seen if isinstance(fault, DataError))
    return [one for one in seen if isinstance(one, _Look)]


def _counts(items: Sequence[Item], looks: Sequence[_Look]) -> dict[str, Any]:
    sizes = Counter(
        f"{one.shape[1]}x{one.shape[0]} {'colour' if len(one.shape) == 3 else 'grey'}"
        for one in looks
    )
    return {
        "images": len(items),
        "groups": len({item.group for item in items}),
        "dtypes": dict(Counter(one.dtype for one in looks)),
        "sizes": dict(sizes.most_common(_NAMED)),
        "other_sizes": max(0, len(sizes) - _NAMED),
    }


def _add_labels(
    splits: dict[str, dict[str, Any]], items: Sequence[Item], labels: Labels, findings: _Findings
) -> None:
    kinds = Counter(str(kind) for kind in labels.sublabels[labels.labels == 1])
    splits["test/abnormal"]["sublabels"] = dict(sorted(kinds.items()))
    if labels.masks is not None:
        pairs = zip(items, labels.masks, strict=True)
        masks = {item: mask for item, mask in pairs if mask is not None}
        splits["test/abnormal"]["masks"] = len(masks)
        _compare_masks(masks, findings)


def _compare_masks(masks: Mapping[Item, Item], findings: _Findings) -> None:
    def look(item: Item) -> tuple[str, bool, bool]:
        image, mask = item.load()[1], binary(masks[item].load()[1])
        return repr(masks[item].name), mask.shape == image.shape[:2], bool(mask.any())

    seen = list(each(list(masks), look))
    findings.errors.extend(str(fault) for fault in seen if isinstance(fault, DataError))
    good = [one for one in seen if not isinstance(one, DataError)]
    other_size = [name for name, same_size, _ in good if not same_size]
    if other_size:
        findings.errors.append(
            f"{len(other_size)} mask(s) have another size than their image: {_some(other_size)}. "
            "Save them at the size of the image."
        )
    empty = [name for name, _, marks in good if not marks]
    if empty:
        findings.warnings.append(
            f"{len(empty)} mask(s) of abnormal images mark nothing: {_some(empty)}. Complete them."
        )


def _find_oddities(looks: Mapping[str, Sequence[_Look]], findings: _Findings) -> None:
    everything = [one for part in looks.values() for one in part]
    constant = [repr(one.item.name) for one in everything if one.constant]
    if constant:
        findings.warnings.append(
            f"{len(constant)} image(s) have only one value: {_some(constant)}. Leave them out."
        )
    if len({one.dtype for one in everything}) > 1:
        findings.warnings.append(
            "images of 8 and of 16 bits are mixed; brightness is taken relative to the full range "
            "of each. Make sure that their brightness is comparable."
        )
    if not any(part.startswith("test") for part in looks):
        findings.warnings.append(
            "there are no test images: models cannot be evaluated. Add test/normal, test/abnormal."
        )


def _find_shared_groups(parts: Parts, findings: _Findings) -> None:
    for first, second in _pairs(parts):
        names = shared_patients(parts[first], [item.group for item in parts[second]])
        if not names:
            continue
        if _leaks(first, second):
            findings.errors.append(
                f"patients (groups) are both in {first} and in {second}: {names}. "
                "Move all images of a patient to one side."
            )
        elif first.partition("/")[0] != "test":
            findings.warnings.append(
                f"patients (groups) are both in {first} and in {second}: {names}. Keep each in one "
                "part where you can; figures on held-out normals may be a little too good."
            )


def _find_equal_images(looks: Mapping[str, Sequence[_Look]], findings: _Findings) -> None:
    where: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for part, seen in looks.items():
        for one in seen:
            where[one.digest].append((part, repr(one.item.name)))
    equal = [places for places in where.values() if len(places) > 1]
    leaking = [
        places
        for places in equal
        if any(_leaks(first, second) for first, second in _pairs([part for part, _ in places]))
    ]
    for found, told, remedy in (
        (leaking, findings.errors, "are both in training and in test. Remove them from one side"),
        ([p for p in equal if p not in leaking], findings.warnings, "exist more than once"),
    ):
        if found:
            names = _some([" = ".join(name for _, name in places[:_NAMED]) for places in found])
            told.append(f"{len(found)} image(s) {remedy}: {names}.")


def _held_out(
    parts: Parts, data: DataConfig, findings: _Findings
) -> tuple[dict[str, int], dict[str, int]]:
    held_out, classes = {}, {}
    try:
        items = training_items(parts, data)
        held_out = {"select": len(items.select), "calibrate": len(items.calibrate)}
        if data.classes == "source":
            classes = dict(sorted(Counter(item.kind for item in items.normal).items()))
            refuse_unknown([*items.select, *items.calibrate], number_kinds(items.normal, data))
    except (ConfigError, DataError) as error:
        findings.errors.append(str(error))
    return held_out, classes


def _leaks(first: str, second: str) -> bool:
    return (first.partition("/")[0] == "test") != (second.partition("/")[0] == "test")


def _pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    ordered = list(names)
    return [(a, b) for index, a in enumerate(ordered) for b in ordered[index + 1 :]]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
