"""What holds before the test processes start."""

from __future__ import annotations

import os
import sys

# The suite starts a hundred programs. Where bytecode is not kept, each compiles LangChain before it does anything.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
