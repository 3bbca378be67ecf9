"""ByzFL's aggregators, a reference for robust rules: in float64, on numpy arrays.

Its package imports its training too, which wants libraries that the aggregators do not need.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

sys.modules.setdefault("byzfl.benchmark", ModuleType("byzfl.benchmark"))
aggregators: Any = import_module("byzfl.aggregators.aggregators")
