# mypy: ignore-errors
from typing import Literal

from pydantic import BaseModel, Field

from tau2.environment.db import DB


class Item(BaseModel):
    item_id: str
    name: str
    state: Literal["there", "lent", "broken"]
    member_id: str | None = None
    times_lent: int = Field(default=0, ge=0)


class Member(BaseModel):
    member_id: str
    email: str
    reminders: int = 0


class LendingDB(DB):
    items: dict[str, Item]
    members: dict[str, Member]
