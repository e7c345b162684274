"""A workflow that is small enough to write down everything about it."""

from pathlib import Path

import pytest

from kintsugi.golden_workflows.spec import Workflow, load_workflow

TOOLS = """
service = "stock"

[[tools]]
name = "stock.get"
description = "Look at a shelf."
effect = "read"
result = { type = "object" }
does = { op = "get", collection = "shelves", id = "= args.shelf" }
[tools.parameters]
type = "object"
additionalProperties = false
required = ["shelf"]
properties = { shelf = { type = "string" } }

[[tools]]
name = "stock.order"
description = "Order pieces."
effect = "write"
idempotency = "key"
approval = "always"
result = { type = "object" }
[tools.parameters]
type = "object"
additionalProperties = false
required = ["pieces"]
properties = { pieces = { type = "integer" } }
[tools.does]
op = "create"
collection = "orders"
id = "= 'O-' ~ n"
set = { pieces = "= args.pieces" }
returns = { id = "= id" }

[[tools]]
name = "stock.tell"
description = "Tell someone."
effect = "write"
result = { type = "object" }
[tools.parameters]
type = "object"
additionalProperties = false
required = ["to"]
properties = { to = { type = "string" } }
[tools.does]
op = "create"
collection = "messages"
id = "= 'M-' ~ n"
set = { to = "= args.to" }
returns = { id = "= id" }
"""

WORKFLOW = """
[task]
title = "Restock"
goal = "Order what a shelf lacks, wait for it, and tell both."
why = "It is small."
review_minutes = 1
repair_minutes = 5

[world.shelves.S-1]
left = 3
people = ["ann", "ben"]

[[plan]]
id = "shelf"
tool = "stock.get"
args = { shelf = "S-1" }

[[plan]]
id = "decide"
ask = "How many pieces?"
inputs = { shelf = "= shelf" }
[plan.output]
type = "object"
additionalProperties = false
required = ["pieces"]
properties = { pieces = { type = "integer" } }

[[plan]]
id = "order"
tool = "stock.order"
args = { pieces = "= decide.pieces" }
fresh = ["shelf"]

[[plan]]
id = "pause"
sleep_seconds = 3600

[[plan]]
id = "tell"
tool = "stock.tell"
for_each = "= shelf.people"
args = { to = "= item" }
fresh = ["shelf"]

[script.decide]
pieces = "= 20 - shelf.left"

[[drift]]
name = "sold"
step = "order"
record = "shelves/S-1"
set = { left = 1 }
effects = [
    { step = "order", tool = "stock.order", args = { pieces = 19 } },
    { step = "tell", tool = "stock.tell", args = { to = "ann" } },
    { step = "tell", tool = "stock.tell", args = { to = "ben" } },
]

[[drift]]
name = "alone"
step = "pause"
record = "shelves/S-1"
set = { people = ["ann"] }
effects = [
    { step = "order", tool = "stock.order", args = { pieces = 17 } },
    { step = "tell", tool = "stock.tell", args = { to = "ann" } },
]

[truth]
effects = [
    { step = "order", tool = "stock.order", args = { pieces = 17 } },
    { step = "tell", tool = "stock.tell", args = { to = "ann" } },
    { step = "tell", tool = "stock.tell", args = { to = "ben" } },
]

[truth.rejected]
order = []
"""


@pytest.fixture(scope="session")
def restock(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """``shop/restock``: a read, a judgement, a write that needs approval, a timer, and a loop of two opaque writes."""
    folder: Path = tmp_path_factory.mktemp("workflows")
    for path, text in (("tools/stock.toml", TOOLS), ("shop/restock.toml", WORKFLOW)):
        (folder / path).parent.mkdir()
        (folder / path).write_text(text)
    return load_workflow(folder / "shop" / "restock.toml", folder / "tools")
