"""The file for `ray up` is one that Ray's launcher accepts."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest
from ray import autoscaler
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.manifests import CLUSTER, read

CONFIG = CLUSTER / "ray-up.yaml"


def schema() -> dict:
    return json.loads((Path(autoscaler.__file__).parent / "ray-schema.json").read_text())


def test_the_file_follows_the_schema_that_ray_ships():
    jsonschema.validate(read(CONFIG), schema())


def test_a_slip_of_the_pen_is_found():
    slipped = copy.deepcopy(read(CONFIG))
    slipped["docker"]["images"] = slipped["docker"].pop("image")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(slipped, schema())


def test_ray_accepts_the_file_with_its_own_defaults_filled_in():
    config = prepare_config(read(CONFIG))
    validate_config(config)
    assert config["head_node_type"] == "head"


def test_the_head_computes_nothing_and_the_workers_are_bounded():
    config = read(CONFIG)
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    workers = {name: kind for name, kind in types.items() if name != "head"}
    assert all(kind["min_workers"] < kind["max_workers"] for kind in workers.values())
    assert sum(kind["max_workers"] for kind in workers.values()) == config["max_workers"]
    assert any(kind["min_workers"] for kind in workers.values())


def test_the_token_is_carried_to_where_ray_looks_and_the_image_asks_for_it():
    assert read(CONFIG)["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    assert "RAY_AUTH_MODE=token" in dockerfile
    assert "/home/ray/.ray" in dockerfile


def test_the_dashboard_listens_on_loopback_alone():
    (start,) = [line for line in read(CONFIG)["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host=127.0.0.1" in start
