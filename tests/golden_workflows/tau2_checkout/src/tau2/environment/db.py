# mypy: ignore-errors
# ruff: noqa: ANN001, ANN206
from pathlib import Path

from pydantic import BaseModel


class DB(BaseModel):
    @classmethod
    def load(cls, path):
        return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
