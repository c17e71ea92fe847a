"""The shipped Serve configuration is one that Serve and the application accept."""

from pathlib import Path

import yaml
from ray.serve.schema import ServeDeploySchema

from serve.settings import AppArgs

CONFIG = Path(__file__).resolve().parents[2] / "cluster" / "serve.yaml"


def test_the_shipped_configuration_is_valid_for_serve_and_for_the_application():
    config = ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text()))
    (application,) = config.applications
    assert application.import_path == "serve.app:build"
    arguments = AppArgs(**application.args)
    arguments.check_exposure()
    assert arguments.host == config.http_options.host
