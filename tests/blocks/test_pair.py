import numpy as np
import pytest
import torch

from gan_ray.blocks.pair import (
    CodePairDiscriminator,
    ImagePairDiscriminator,
    JointDiscriminator,
)


def pair(mode: str, channels: int = 1, dropout: float = 0.0) -> ImagePairDiscriminator:
    torch.manual_seed(0)
    return ImagePairDiscriminator(channels, 32, (6, 8), mode=mode, dropout=dropout).double()


def rows_seen(judge: ImagePairDiscriminator, number: int) -> set[int]:
    """Rows of the last map that the first (0) or the second (1) image of a pair can change."""
    images = torch.rand(2, 1, 1, 32, 32, dtype=torch.float64)
    changed = images.clone()
    changed[number] += 1
    with torch.no_grad():
        change = judge(*changed)[1] - judge(*images)[1]
    rows = change.view(8, -1, 8).abs().amax((0, 2))
    return set(rows.nonzero().flatten().tolist())


def test_joined_as_channels_every_feature_sees_both_images():
    judge = pair("channel")
    assert rows_seen(judge, 0) == rows_seen(judge, 1) == set(range(8))


def test_joined_by_height_only_three_of_sixteen_rows_see_both_images():
    judge = pair("height")
    assert rows_seen(judge, 0) | rows_seen(judge, 1) == set(range(16))
    assert rows_seen(judge, 0) & rows_seen(judge, 1) == {7, 8, 9}


@pytest.mark.parametrize(("mode", "additive"), [("channel", False), ("height", True)])
def test_joined_by_height_the_judge_cannot_compare_places_far_from_the_seam(mode, additive):
    # With a and b changed only far from the seam, D(a, b) is g(a) + h(b) there.
    judge = pair(mode)
    a, b = torch.rand(2, 1, 1, 32, 32, dtype=torch.float64)
    other_a, other_b = a.clone(), b.clone()
    other_a[..., :20, :] += 1
    other_b[..., 12:, :] += 1
    with torch.no_grad():
        mixed = judge(a, b)[0] - judge(other_a, b)[0] - judge(a, other_b)[0]
        interaction = (mixed + judge(other_a, other_b)[0]).abs().item()
    assert (interaction < 1e-12) == additive


# Features by the published table, at 32 pixels: 8x8x128, twice as many by height; 32; 1024.
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("mode", "features"), [("channel", 8192), ("height", 16384)])
def test_published_features_of_two_images(channels, mode, features):
    judge = ImagePairDiscriminator(channels, 32, (64, 128), mode=mode, dropout=0.2)
    logit, seen = judge(*torch.rand(2, 3, channels, 32, 32))
    assert (logit.shape, seen.shape) == ((3,), (3, features))


def test_published_features_of_two_codes_and_of_an_image_and_its_code():
    logit, seen = CodePairDiscriminator(100, (64, 32), dropout=0.2)(*torch.rand(2, 3, 100))
    assert (logit.shape, seen.shape) == ((3,), (3, 32))
    judge = JointDiscriminator(3, (128, 256, 512), 100, 1024, dropout=0.2)
    logit, seen = judge(torch.rand(3, 3, 32, 32), torch.rand(3, 100))
    assert (logit.shape, seen.shape) == ((3,), (3, 1024))
    assert judge.joint[0].in_features == 8192 + 512


def test_a_logit_is_the_head_of_the_features():
    judge = pair("channel")
    with torch.no_grad():
        logit, features = judge(*torch.rand(2, 3, 1, 32, 32, dtype=torch.float64))
    by_hand = features.numpy() @ judge.head.weight.detach().numpy()[0] + judge.head.bias.item()
    np.testing.assert_allclose(logit.numpy(), by_hand)


def test_dropout_acts_in_training_alone():
    judge, images = pair("channel", dropout=0.5), torch.rand(2, 3, 1, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        first, second = (judge.train()(*images)[1] for _ in range(2))
        assert not torch.equal(first, second)
        first, second = (judge.eval()(*images)[1] for _ in range(2))
        assert torch.equal(first, second)
