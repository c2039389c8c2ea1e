"""What holds before the test processes start."""

from __future__ import annotations

import os
import sys

from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

# The suite starts a hundred programs. Where bytecode is not kept, each compiles LangChain before it
# does anything.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

pytest_plugins = ["tests.support.fixtures"]
