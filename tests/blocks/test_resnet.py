import pytest
import torch

from gan_ray.blocks.resnet import ResidualBlock, ResnetGenerator


# Published sizes: HealthyGAN with 4 raw channels, Brainomaly with 1 (design, sections 2.1 and 3.1).
@pytest.mark.parametrize(
    ("inputs", "outputs", "parameters"),
    [(3, 4, 8_417_984), (1, 2, 8_405_440), (3, 1, 8_408_576), (1, 1, 8_402_304)],
)
def test_published_sizes(inputs, outputs, parameters):
    with torch.device("meta"):
        generator = ResnetGenerator(inputs, outputs)
    assert sum(p.numel() for p in generator.parameters()) == parameters


@pytest.mark.parametrize("size", [8, 20, 64, 192, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_generator_keeps_the_size(size, channels):
    generator = ResnetGenerator(channels, 2, width=2, blocks=1)
    assert generator(torch.randn(1, channels, size, size)).shape == (1, 2, size, size)


def test_an_image_does_not_see_its_neighbours_in_train_mode():
    torch.manual_seed(0)
    generator = ResnetGenerator(1, 1, width=4, blocks=1).train()
    images = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(generator(images)[1:2], generator(images[1:2]))


def test_residual_block_adds_to_its_input():
    torch.manual_seed(0)
    block = ResidualBlock(4)
    inputs = torch.randn(2, 4, 8, 8)
    torch.nn.init.zeros_(block.layers[-1].weight)
    assert torch.equal(block(inputs), inputs)
