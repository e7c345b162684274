# mypy: ignore-errors
"""The real one imports agents and model clients; the loader has to pass it over."""

raise ImportError("the package itself is not to be imported")
