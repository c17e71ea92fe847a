import pytest
import torch

from gan_ray.blocks.windows import window_partition, window_reverse


@pytest.mark.parametrize("grid", [1, 2, 3])
def test_reverse_undoes_partition(grid):
    maps = torch.randn(2, 3, 6, 12)
    windows = window_partition(maps, grid)
    assert windows.shape == (2 * grid**2, 3, 6 // grid, 12 // grid)
    assert torch.equal(window_reverse(windows, grid), maps)


def test_windows_go_row_by_row_and_map_after_map():
    maps = torch.arange(2 * 16.0).view(2, 1, 4, 4)
    windows = window_partition(maps, 2)
    for image in range(2):
        for row in range(2):
            for column in range(2):
                cut = maps[image, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                assert torch.equal(windows[4 * image + 2 * row + column], cut)
