"""Which row comes when is a pure function, whoever asks and however many share the work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_ray.data.sets import Split, TrainingData
from gan_ray.data.streams import Streams
from gan_ray.errors import ConfigError

CLASSES = 3


def numbered(count: int, dtype: type = np.uint8) -> Split:
    """Images whose left column says which row they are; the right one is black."""
    images = np.zeros((count, 1, 2, 2), dtype=dtype)
    images[..., 0] = np.arange(count)[:, None, None]
    names = np.array([str(number) for number in range(count)])
    return Split(images, names, names, classes=np.arange(count) % CLASSES)


def training_data(normal: int, unlabeled: int | None = None) -> TrainingData:
    mix = None if unlabeled is None else numbered(unlabeled)
    return TrainingData(numbered(normal), mix, numbered(1), numbered(1), None, "")


def streams(normal: int, unlabeled: int | None = None, **settings: object) -> Streams:
    names = ("normal",) if unlabeled is None else ("normal", "unlabeled")
    given = {"seed": 0, "device": torch.device("cpu"), "dtype": torch.float32, **settings}
    return Streams(training_data(normal, unlabeled), names, **given)


def rows(batch: dict[str, torch.Tensor], name: str = "normal", column: int = 0) -> list[int]:
    return ((batch[name][:, 0, 0, column].double() + 1) * 127.5).round().long().tolist()


def take(
    source: Streams, images: int, size: int, rank: int = 0, world: int = 1, stage: str = "gan"
):
    return source.batch(stage=stage, images=images, size=size, rank=rank, world=world)


@given(st.integers(1, 40), st.integers(0, 300), st.integers(1, 12), st.sampled_from([1, 2, 3, 4]))
def test_the_slices_of_all_ranks_make_the_whole(count: int, images: int, share: int, world: int):
    source = streams(count, 7, flip=True)
    whole = take(source, images, share * world)
    parts = [take(source, images, share * world, rank, world) for rank in range(world)]
    for name in ("normal", "unlabeled"):
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])


@given(st.integers(1, 60), st.integers(1, 17), st.integers(0, 3))
def test_each_epoch_gives_each_row_exactly_once(count: int, size: int, epoch: int):
    source = streams(count, 5)
    seen: list[int] = []
    for images in range(0, (epoch + 1) * count + size, size):
        seen += rows(take(source, images, size))
    one = seen[epoch * count : (epoch + 1) * count]
    assert sorted(one) == list(range(count))


@given(st.integers(0, 500), st.lists(st.integers(0, 500), max_size=5))
def test_a_batch_does_not_depend_on_what_was_asked_before(images: int, before: list[int]):
    source = streams(13, 7, flip=True)
    for earlier in before:
        take(source, earlier, 6, stage="other")
    asked, fresh = take(source, images, 8), take(streams(13, 7, flip=True), images, 8)
    assert all(torch.equal(asked[name], fresh[name]) for name in fresh)


@given(st.integers(0, 100), st.integers(1, 20), st.integers(1, 20))
def test_two_batches_in_a_row_are_one_large_batch(images: int, first: int, second: int):
    source = streams(11)
    both = rows(take(source, images, first)) + rows(take(source, images + first, second))
    assert both == rows(take(source, images, first + second))


def test_seed_stage_stream_and_epoch_each_draw_their_own_order():
    source = streams(50, 50)
    orders = [
        rows(take(source, 0, 50)),
        rows(take(source, 50, 50)),
        rows(take(source, 0, 50, stage="encoder")),
        rows(take(source, 0, 50), "unlabeled"),
        rows(take(streams(50, seed=1), 0, 50)),
    ]
    assert len({tuple(order) for order in orders}) == 5


def test_only_the_wanted_streams_are_given():
    source = Streams(
        training_data(5, 5), ("normal",), seed=0, device=torch.device("cpu"), dtype=torch.float64
    )
    batch = take(source, 0, 4)
    assert set(batch) == {"normal"}
    assert batch["normal"].dtype == torch.float64


@given(st.integers(1, 40), st.integers(0, 300), st.integers(1, 12), st.sampled_from([1, 2, 3]))
def test_classes_are_those_of_the_normal_rows_over_epochs_and_ranks(
    count: int, images: int, share: int, world: int
):
    names = ("normal", "class")
    device, dtype = torch.device("cpu"), torch.float64
    source = Streams(training_data(count), names, seed=0, device=device, dtype=dtype)
    for rank in range(world):
        batch = take(source, images, share * world, rank, world)
        assert batch["class"].dtype == torch.int64
        assert batch["class"].tolist() == [row % CLASSES for row in rows(batch)]


def test_wanting_classes_or_flips_changes_no_row():
    device, dtype = torch.device("cpu"), torch.float32
    for flip in (False, True):
        settings = {"seed": 0, "device": device, "dtype": dtype, "flip": flip}
        plain = take(Streams(training_data(30), ("normal",), **settings), 20, 30)
        both = take(Streams(training_data(30), ("class", "normal"), **settings), 20, 30)
        assert torch.equal(both["normal"], plain["normal"])
        columns = zip(rows(both), rows(both, column=1), strict=True)
        assert both["class"].tolist() == [max(pair) % CLASSES for pair in columns]


def test_a_missing_stream_is_refused_with_both_lists():
    with pytest.raises(
        ConfigError, match="needs the streams normal, unlabeled, but the data offers normal, class:"
    ):
        Streams(
            training_data(5), ("normal", "unlabeled"),
            seed=0, device=torch.device("cpu"), dtype=torch.float32,
        )  # fmt: skip


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ConfigError, match="10 images cannot be split over 4"):
        take(streams(5), 0, 10, 0, 4)


def test_flipping_mirrors_about_half_and_only_when_asked():
    plain, flipped = take(streams(200), 0, 200), take(streams(200, flip=True), 0, 200)
    left, right = rows(flipped), rows(flipped, column=1)
    assert rows(plain, column=1) == [0] * 200
    assert [a + b for a, b in zip(left, right, strict=True)] == rows(plain)
    assert 70 < sum(value > 0 for value in right) < 130


def test_a_stream_of_sixteen_bits_covers_the_same_range():
    images = np.array([0, 65535], dtype=np.uint16).reshape(2, 1, 1, 1)
    names = np.array(["a", "b"])
    split = Split(images, names, names, classes=np.zeros(2, np.int64))
    data = TrainingData(split, None, split, split, None, "")
    source = Streams(data, ("normal",), seed=0, device=torch.device("cpu"), dtype=torch.float32)
    assert sorted(take(source, 0, 2)["normal"].flatten().tolist()) == [-1.0, 1.0]
