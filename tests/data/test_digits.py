"""The embedded digits are split once and for ever."""

from __future__ import annotations

import numpy as np
import pytest

from gan_ray.config import DataConfig
from gan_ray.data.sources import load_test, load_training
from gan_ray.errors import ConfigError

DIGITS = DataConfig(source="digits", image_size=8, abnormal_class=0)


def test_the_split_is_fixed_and_leaves_enough_to_test():
    trained, test = load_training(DIGITS), load_test(DIGITS)
    held = len(trained.select) + len(trained.calibrate)
    assert trained.unlabeled is not None
    assert len(trained.normal) + held + len(trained.unlabeled) == 1797 - 710
    assert (len(test.split), int(test.labels.sum())) == (710, 65)
    assert set(test.sublabels) == {"normal", "class 0"}


def test_no_image_is_in_two_parts():
    trained, test = load_training(DIGITS), load_test(DIGITS)
    parts = (trained.normal, trained.unlabeled, trained.select, trained.calibrate, test.split)
    ids = np.concatenate([part.ids for part in parts if part is not None])
    assert len(set(ids)) == len(ids)


def test_the_darkest_points_fill_the_range():
    images = load_training(DIGITS).normal.images
    assert (images.min(), images.max(), images.dtype) == (0, 255, np.uint8)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match=r"normal_class .* and data\.abnormal_class"):
        load_training(DataConfig(source="digits"))
    with pytest.raises(ConfigError, match=r"embedded, but data\.root is 'here'"):
        load_training(DataConfig(source="digits", root="here", normal_class=0))
