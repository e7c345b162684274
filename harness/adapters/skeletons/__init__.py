"""The files that `kintsugi adapter new` writes: an adapter file, and an agent in one of several languages."""

__all__: list[str] = []
