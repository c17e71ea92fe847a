import pytest

from gan_ray.artifacts.folder import new_folder
from gan_ray.errors import ConfigError


def test_a_folder_that_somebody_else_made_meanwhile_is_left_alone(tmp_path):
    path = tmp_path / "bundle"

    def write_while_another_does() -> None:
        with new_folder(path) as folder:
            (folder / "file").write_text("ours")
            path.mkdir()
            (path / "file").write_text("theirs")

    with pytest.raises(ConfigError, match="exists already"):
        write_while_another_does()
    assert (path / "file").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [path]
