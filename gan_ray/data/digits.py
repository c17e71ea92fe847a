"""Source `digits`: handwritten digits that come with scikit-learn; nothing is downloaded.

1,797 real images of 8 x 8 pixels: the test part of "Optical Recognition of Handwritten Digits",
E. Alpaydin and C. Kaynak, UCI 1998.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.one_vs_rest import OneVsRest
from gan_ray.data.splits import position
from gan_ray.errors import ConfigError

TRAIN_SHARE = 0.6


def digits(data: DataConfig) -> OneVsRest:
    """Give the source, split into training and test once and for ever, by hash of the number.

    Raises:
        ConfigError: not exactly one of normal_class and abnormal_class is set, or a root is.
    """
    if data.root:
        raise ConfigError(
            f"source 'digits' is embedded, but data.root is '{data.root}'. "
            "Leave the root out, or choose another --data.source."
        )
    return OneVsRest(
        data, images=lambda part: _parts()[part][0], classes=lambda part: _parts()[part][1]
    )


@cache
def _parts() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    # 0 to 16, the number of dark points in a 4 x 4 field, becomes 0 to 255.
    images = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    train = np.array([position(str(n), "digits") < TRAIN_SHARE for n in range(len(images))])
    return {"train": (images[train], classes[train]), "test": (images[~train], classes[~train])}
