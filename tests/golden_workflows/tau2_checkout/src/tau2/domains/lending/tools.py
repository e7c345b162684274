# mypy: ignore-errors
import os

from tau2.domains.lending.data_model import Item, LendingDB, Member
from tau2.environment.toolkit import ToolKitBase, ToolType, is_tool

os.environ["LENDING_SETTING"] = "what a .env file of the checkout would set"


class LendingTools(ToolKitBase):
    db: LendingDB

    @is_tool()
    def find_member(self, email: str) -> str:
        """The id of the member with an e-mail address."""
        for member in self.db.members.values():
            if member.email == email:
                return member.member_id
        raise ValueError("no member has this address")

    @is_tool()
    def get_item(self, item_id: str) -> Item:
        """Everything about an item."""
        if item_id not in self.db.items:
            raise ValueError("there is no such item")
        return self.db.items[item_id]

    @is_tool(ToolType.GENERIC)
    def add(self, numbers: list[int]) -> int:
        """The sum of numbers."""
        return sum(numbers)

    @is_tool(ToolType.WRITE)
    def lend(self, item_ids: list[str], member_id: str) -> list[Item]:
        """Lend items to a member, one after another."""
        for item_id in item_ids:
            item = self.get_item(item_id)
            if item.state != "there":
                raise ValueError(f"{item.name} is {item.state}")
            item.state, item.member_id, item.times_lent = "lent", member_id, item.times_lent + 1
        return [self.db.items[item_id] for item_id in item_ids]

    @is_tool(ToolType.WRITE)
    def give_back(self, item_id: str, broken: bool) -> Item:
        """Take an item back."""
        item = self.get_item(item_id)
        if item.state != "lent":
            raise ValueError(f"{item.name} is not lent")
        item.state, item.member_id = "broken" if broken else "there", None
        return item

    @is_tool(ToolType.WRITE)
    def remind(self, member_id: str) -> Member:
        """Remind a member; another time, where it is done again."""
        self.db.members[member_id].reminders += 1
        return self.db.members[member_id]

    @is_tool(ToolType.WRITE)
    def remind_all(self) -> int:
        """Remind every member."""
        for member in self.db.members.values():
            member.reminders += 1
        return len(self.db.members)
