"""`gan-ray data check`: is this data set usable, and can a figure measured on it be believed?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.duplicates import find_copies, find_equal
from gan_ray.data.findings import NAMED, Findings, in_test, leaks, pairs, some
from gan_ray.data.items import Item, Labels, each
from gan_ray.data.kinds import number_kinds, refuse_unknown
from gan_ray.data.looks import Look, look_at
from gan_ray.data.masks import binary
from gan_ray.data.shortcuts import shortcut_aurocs, shortcut_warning
from gan_ray.data.sources import Parts, open_source, shared_patients, training_items
from gan_ray.errors import ConfigError, DataError
from gan_ray.names import named, shown


def check(data: DataConfig, *, with_labels: bool = False) -> dict[str, Any]:
    """Look at every image once and report what is there, as a dict ready for JSON.

    Keys: `ok`; `source`; `grouped_by`; `splits`, by part: images, groups, dtypes, sizes, and with
    labels also sublabels and masks; `held_out`: images for selection and for calibration;
    `classes`: training normals of each class that the source tells, where they are asked for;
    `shortcuts`, with labels: the AUROC of `shortcuts.FEATURES` on test and on validation images;
    `streams`; `ignored`; `warnings` and `errors`: sentences that say what to do. `ok` is false
    when there are errors: files that cannot be used, patients or pictures (equal, or resized and
    the like) in both training and test. Test labels are read only `with_labels`, and feed nothing.

    Raises:
        ConfigError: settings that cannot work.
        DataError: there is nothing to look at.
    """
    source = open_source(data)
    findings = Findings()
    labels = source.labels() if with_labels else None
    training, test = source.training(), source.test()
    parts = {**training, **_test_parts(test, labels)}
    parts = {part: items for part, items in parts.items() if items}
    looks: dict[str, list[Look]] = {}
    for part, items in parts.items():
        looks[part], faults = look_at(items)
        findings.errors.extend(str(fault) for fault in faults)
    splits = {part: _counts(parts[part], looks[part]) for part in parts}
    if labels is not None and "test/abnormal" in splits:
        _add_labels(splits, test, labels, findings)
    findings.warnings.extend(source.notes)
    _find_oddities(looks, findings)
    _find_shared_groups(parts, findings)
    find_equal(looks, findings)
    find_copies(looks, findings)
    shortcuts = _find_shortcuts(looks, findings) if with_labels else {}
    held_out, classes = _held_out(training, data, findings)
    return {
        "ok": not findings.errors,
        "source": data.root or data.source,
        "grouped_by": source.grouped_by,
        "splits": splits,
        "held_out": held_out,
        "classes": classes,
        "shortcuts": shortcuts,
        "streams": [part.removeprefix("train/") for part in parts if part.startswith("train/")],
        "ignored": list(map(named, source.ignored)),
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


def _counts(items: Sequence[Item], looks: Sequence[Look]) -> dict[str, Any]:
    sizes = Counter(
        f"{one.shape[1]}x{one.shape[0]} {'colour' if len(one.shape) == 3 else 'grey'}"
        for one in looks
    )
    return {
        "images": len(items),
        "groups": len({item.group for item in items}),
        "dtypes": dict(Counter(one.dtype for one in looks)),
        "sizes": dict(sizes.most_common(NAMED)),
        "other_sizes": max(0, len(sizes) - NAMED),
    }


def _add_labels(
    splits: dict[str, dict[str, Any]], items: Sequence[Item], labels: Labels, findings: Findings
) -> None:
    kinds = Counter(str(kind) for kind in labels.sublabels[labels.labels == 1])
    splits["test/abnormal"]["sublabels"] = dict(sorted(kinds.items()))
    if labels.masks is not None:
        pairs = zip(items, labels.masks, strict=True)
        masks = {item: mask for item, mask in pairs if mask is not None}
        splits["test/abnormal"]["masks"] = len(masks)
        _compare_masks(masks, findings)


def _compare_masks(masks: Mapping[Item, Item], findings: Findings) -> None:
    def look(item: Item) -> tuple[str, bool, bool]:
        image, mask = item.load()[1], binary(masks[item].load()[1])
        return shown(masks[item].name), mask.shape == image.shape[:2], bool(mask.any())

    seen = list(each(list(masks), look))
    findings.errors.extend(str(fault) for fault in seen if isinstance(fault, DataError))
    good = [one for one in seen if not isinstance(one, DataError)]
    other_size = [name for name, same_size, _ in good if not same_size]
    if other_size:
        findings.errors.append(
            f"{len(other_size)} mask(s) have another size than their image: {some(other_size)}. "
            "Save them at the size of the image."
        )
    empty = [name for name, _, marks in good if not marks]
    if empty:
        findings.warnings.append(
            f"{len(empty)} mask(s) of abnormal images mark nothing: {some(empty)}. Complete them."
        )


def _find_oddities(looks: Mapping[str, Sequence[Look]], findings: Findings) -> None:
    everything = [one for part in looks.values() for one in part]
    constant = [shown(one.item.name) for one in everything if one.constant]
    if constant:
        findings.warnings.append(
            f"{len(constant)} image(s) have only one value: {some(constant)}. Leave them out."
        )
    if len({one.dtype for one in everything}) > 1:
        findings.warnings.append(
            "images of 8 and of 16 bits are mixed; brightness is taken relative to the full range "
            "of each. Make sure that their brightness is comparable."
        )
    stretched = [shown(one.item.name) for one in everything if one.stretched]
    if stretched:
        findings.warnings.append(
            f"{len(stretched)} DICOM or NIfTI image(s) state no window or range, so that each goes "
            f"from its own darkest to its own brightest value: {some(stretched)}. Write one window "
            "(WindowCenter and WindowWidth; cal_min and cal_max) into all images of a kind; else "
            "their brightness cannot be compared."
        )
    if not any(in_test(part) for part in looks):
        findings.warnings.append(
            "there are no test images: models cannot be evaluated. Add test/normal, test/abnormal."
        )


def _find_shortcuts(
    looks: Mapping[str, Sequence[Look]], findings: Findings
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for split in ("val", "test"):
        kinds = [looks.get(f"{split}/{kind}", ()) for kind in ("normal", "abnormal")]
        if all(kinds):
            normal, abnormal = (np.stack([one.features for one in kind]) for kind in kinds)
            found[split] = shortcut_aurocs(normal, abnormal)
            warning = shortcut_warning(split, found[split], len(normal), len(abnormal))
            findings.warnings.extend([warning] if warning else [])
    return found


def _find_shared_groups(parts: Parts, findings: Findings) -> None:
    for first, second in pairs(parts):
        names = shared_patients(parts[first], [item.group for item in parts[second]])
        if not names:
            continue
        if leaks(first, second):
            findings.errors.append(
                f"patients (groups) are both in {first} and in {second}: {names}. "
                "Move all images of a patient to one side."
            )
        elif not in_test(first):
            findings.warnings.append(
                f"patients (groups) are both in {first} and in {second}: {names}. Keep each in one "
                "part where you can; figures on held-out normals may be a little too good."
            )


def _held_out(
    parts: Parts, data: DataConfig, findings: Findings
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
