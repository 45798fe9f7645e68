"""Imports that the forks of tests/processes.py share."""

import gc
from importlib import import_module

from app import cli
from app.core import threads
from app.core.config import Settings, get_settings

# With the lowest priority, images would wait for the processes of all other tests.
threads.LOWEST_PRIORITY = 0

commands = {f"app.cli.{command.module}" for command in cli.COMMANDS.values()}
servers = ("app.main", "gunicorn.app.wsgiapp", "uvicorn.main", "uvicorn_worker")
# Servers import them when they start.
later = ("anyio._backends._asyncio", "jinja2.ext", "uvicorn.lifespan.on", "uvicorn.loops.uvloop")
for module in (*commands, *servers, *later):
    import_module(module)

Settings.model_config["env_file"] = None  # a `.env` of the checkout has no effect on tests
assert get_settings.cache_info().currsize == 0, "an import has read the settings"

gc.collect()
gc.freeze()  # collections of the forks would copy these objects
