"""Imports that the forks of tests/processes.py share."""

import gunicorn.app.wsgiapp  # noqa: F401 - imported for the forks
import uvicorn.main  # noqa: F401 - imported for the forks
import uvicorn_worker  # noqa: F401 - imported for the forks

import app.cli
import app.main  # noqa: F401 - imported for the forks
from app.core.config import Settings, get_settings

Settings.model_config["env_file"] = None  # a `.env` of the checkout has no effect on tests
assert get_settings.cache_info().currsize == 0, "an import has read the settings"
