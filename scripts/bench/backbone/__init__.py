"""A benchmark of the event backbone; `__main__.py` says what is measured."""
