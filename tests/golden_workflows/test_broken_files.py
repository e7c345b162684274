"""Files that can't be used: each is refused with one line that names file, key, what was found, and what is allowed."""

from pathlib import Path

import pytest

from kintsugi.golden_workflows.reference import check_truth
from kintsugi.golden_workflows.spec import FileProblem, load_tools, load_workflow, load_workflows

TOOLS = """
service = "stock"

[[tools]]
name = "stock.get"
description = "Read one shelf."
effect = "read"
price_usd = 0.001
parameters = { type = "object", additionalProperties = false, required = ["shelf"], properties = { shelf = { type = "string" } } }
result = { type = "object", required = ["left"], properties = { left = { type = "integer", minimum = 0 } } }
does = { op = "get", collection = "shelves", id = "= args.shelf" }

[[tools]]
name = "stock.list"
description = "List the shelves of a room."
effect = "read"
parameters = { type = "object", additionalProperties = false, required = ["room"], properties = { room = { type = "string" } } }
result = { type = "object", required = ["items"], properties = { items = { type = "array" } } }
does = { op = "list", collection = "shelves", where = "= record.room == args.room" }

[[tools]]
name = "stock.order"
description = "Order pieces for a shelf."
effect = "write"
idempotency = "key"
approval = { parameter = "pieces", above = 10 }
parameters = { type = "object", additionalProperties = false, required = ["shelf", "pieces"], properties = { shelf = { type = "string" }, pieces = { type = "integer", minimum = 1 } } }
result = { type = "object", required = ["order_id"], properties = { order_id = { type = "string" } } }
does = { op = "create", collection = "orders", id = "= 'ORD-' ~ n", set = { shelf = "= args.shelf", pieces = "= args.pieces" }, returns = { order_id = "= id" } }

[[tools]]
name = "stock.mark"
description = "Mark a shelf."
effect = "write"
if_match = true
parameters = { type = "object", additionalProperties = false, required = ["shelf", "mark"], properties = { shelf = { type = "string" }, mark = { enum = ["ordered", "full"] }, note = { type = "string" } } }
result = { type = "object", required = ["mark"], properties = { mark = { type = "string" } } }
does = { op = "update", collection = "shelves", id = "= args.shelf", set = { mark = "= args.mark" }, returns = { mark = "= record.mark" } }
"""

WORKFLOW = """
[task]
title = "Restock a room"
goal = "Restock room R."
why = "It tests the loader."
review_minutes = 1
repair_minutes = 2

[world.shelves.S-1]
room = "R"
left = 3
mark = "none"

[world.shelves.S-2]
room = "R"
left = 8
mark = "none"

[[plan]]
id = "shelf"
tool = "stock.get"
args = { shelf = "S-1" }

[[plan]]
id = "room"
tool = "stock.list"
args = { room = "= shelf.room" }

[[plan]]
id = "decide"
ask = "How many are missing to 20?"
inputs = { shelf = "= shelf" }
[plan.output]
type = "object"
additionalProperties = false
required = ["pieces", "note"]
[plan.output.properties]
pieces = { type = "integer", minimum = 1 }
note = { type = "string", minLength = 5 }

[[plan]]
id = "order"
tool = "stock.order"
when = "= decide.pieces > 0"
args = { shelf = "= shelf.id", pieces = "= decide.pieces" }
fresh = ["shelf"]

[[plan]]
id = "mark"
tool = "stock.mark"
args = { shelf = "S-1", mark = "ordered", note = "= decide.note" }
fresh = ["shelf"]

[script.decide]
pieces = "= 20 - shelf.left"
note = "~= 'There are ' ~ shelf.left ~ ' left.'"

[[drift]]
name = "sold"
step = "order"
record = "shelves/S-1"
set = { left = 1 }
effects = [
    { step = "order", tool = "stock.order", args = { shelf = "S-1", pieces = 19 } },
    { step = "mark", tool = "stock.mark", args = { shelf = "S-1", mark = "ordered" } },
]

[truth]
effects = [
    { step = "order", tool = "stock.order", args = { shelf = "S-1", pieces = 17 } },
    { step = "mark", tool = "stock.mark", args = { shelf = "S-1", mark = "ordered" } },
]

[truth.rejected]
order = []
"""

ORDER = 'args = { shelf = "= shelf.id", pieces = "= decide.pieces" }'
SHELF = 'tool = "stock.get"\nargs = { shelf = "S-1" }'
MARK = 'args = { shelf = "S-1", mark = "ordered", note = "= decide.note" }'
DRIFT = 'step = "order"\nrecord = "shelves/S-1"\nset = { left = 1 }'
LAST_DRIFT = """[[drift]]
name = "again"
step = "{step}"
record = "{record}"
set = {{ {set} }}
effects = []

[truth]
"""
LOOP = """[[plan]]
id = "each"
tool = "stock.order"
for_each = "= room.items"
args = {{ shelf = "= item.id", pieces = {pieces} }}

[script.decide]"""
TIMER = '[[plan]]\nid = "pause"\nsleep_seconds = 60\n\n[[plan]]\nid = "order"'

# What stands in the workflow, what is put in its place, and what the one line says.
BROKEN: dict[str, tuple[str, str, str]] = {
    # --- form
    "not_toml": ("[task]", "[task", ": not valid TOML: "),
    "date": ('room = "R"\nleft = 3', "room = 2024-05-01\nleft = 3", "world.shelves.S-1.room: 2024-05-01 has no form in JSON; put it in quotes"),
    "infinite": ("left = 3", "left = inf", "world.shelves.S-1.left: inf has no form in JSON"),
    "misspelt_section": ("[task]", "[tasks]", ": tasks: unknown key; did you mean 'task'?"),
    "misspelt_key": ("goal =", "gaol =", "task.gaol: unknown key; did you mean 'goal'?"),
    "misspelt_key_of_a_step": ('when = "= decide', 'wehn = "= decide', "plan.order.wehn: unknown key; did you mean 'when'?"),
    "missing_key": ("review_minutes = 1\n", "", "task.review_minutes: this key is missing"),
    "missing_truth": ("[truth]\neffects", "[nothing]\neffects", ": nothing: unknown key"),
    "number_as_text": ("review_minutes = 1", 'review_minutes = "1"', "task.review_minutes: input should be a valid number, found '1'"),
    "no_minutes": ("review_minutes = 1", "review_minutes = 0", "task.review_minutes: input should be greater than 0, found 0"),
    "policy_value": ("[script.decide]", '[policy]\non_reject = "go"\n[script.decide]', "policy.on_reject: input should be 'stop', found 'go'"),
    "policy_key": ("[script.decide]", "[policy]\natempts = 3\n[script.decide]", "policy.atempts: unknown key; did you mean 'attempts'?"),
    "bad_step_id": ('id = "shelf"', 'id = "The Shelf"', "plan.The Shelf.id: string should match pattern"),
    "bad_outcome": (DRIFT, DRIFT + '\noutcome = "ignore"', "drift.sold.outcome: input should be 'refresh' or 'flag', found 'ignore'"),
    # --- steps
    "two_kinds": (SHELF, SHELF + "\nsleep_seconds = 5", "plan.shelf: a step has exactly one of 'tool', 'ask' and 'sleep_seconds'"),
    "no_kind": (SHELF, "", "plan.shelf: a step has exactly one of 'tool', 'ask' and 'sleep_seconds'"),
    "loop_on_ask": ('inputs = { shelf = "= shelf" }', 'inputs = { shelf = "= shelf" }\nfor_each = "= room.items"', "plan.decide: 'for_each' goes with 'tool' only, and this step has 'ask'"),
    "inputs_on_tool": (SHELF, SHELF + "\ninputs = { a = 1 }", "plan.shelf: 'inputs' goes with 'ask' only, and this step has 'tool'"),
    "ask_without_inputs": ('inputs = { shelf = "= shelf" }\n', "", "plan.decide: an 'ask' needs 'inputs'"),
    "when_no_expression": ('when = "= decide', 'when = "decide', "plan.order: 'when' must be an expression, a string that starts with '='"),
    "on_stale_alone": (SHELF, SHELF + '\non_stale = "flag"', "plan.shelf: 'on_stale' needs 'fresh'"),
    "two_of_an_id": ('id = "room"', 'id = "shelf"', "plan.shelf: two steps have this id; give each its own"),
    "reserved_item": ('id = "room"', 'id = "item"', "plan.item: a step can't be called 'item', a loop's own name for its element"),
    "reserved_word": ('id = "room"', 'id = "not"', "plan.not: a step can't be called 'not', a word of the expression language"),
    "unknown_tool": ('tool = "stock.get"', 'tool = "stock.gett"', "plan.shelf.tool: no tool is called 'stock.gett'; did you mean 'stock.get'?"),
    # --- expressions
    "syntax": ('"= decide.pieces > 0"', '"= decide.pieces >"', "plan.order.when: 'decide.pieces >' can't be parsed"),
    "unknown_filter": ('"= shelf.room"', '"= shelf.room | uper"', "plan.room.args: 'shelf.room | uper' can't be parsed: No filter named 'uper'"),
    "unknown_step_in_when": ("= decide.pieces > 0", "= decied.pieces > 0", "plan.order.when: an expression names 'decied', which is no earlier step; did you mean 'decide'?"),
    "later_step": ('"= shelf.room"', '"= decide.note"', "plan.room.args: an expression names 'decide', which is a later step"),
    "item_without_loop": ('"= shelf.id"', '"= item.id"', "plan.order.args: 'item' is known only in the args of a step with 'for_each'"),
    "item_in_when": ('when = "= decide.pieces > 0"', 'when = "= item"\nfor_each = "= room.items"', "plan.order.when: 'item' is known only in the args"),
    "field_of_answer": ("= decide.pieces > 0", "= decide.piece > 0", "plan.order.when: 'decide' gives no 'piece'; did you mean 'pieces'?"),
    "field_of_write": (MARK, 'args = { shelf = "= order.ordr_id", mark = "full" }', "plan.mark.args: 'order' gives no 'ordr_id'; did you mean 'order_id'?"),
    "value_of_timer": ('[[plan]]\nid = "order"', TIMER.replace('id = "order"', 'id = "order"').replace("60\n", "60\n"), ""),
    # --- tool steps
    "unknown_argument": (ORDER, ORDER.replace("pieces =", "piece ="), "plan.order.args.piece: stock.order has no such argument; did you mean 'pieces'?"),
    "missing_argument": (ORDER, 'args = { shelf = "S-1" }', "plan.order.args.pieces: this key is missing; stock.order requires it"),
    "literal_breaks_schema": ('mark = "ordered", note', 'mark = "empty", note', "plan.mark.args.mark: 'empty' is not one of ['ordered', 'full']"),
    "free_text_in_args": ('"= decide.note"', "\"~= 'Hello'\"", "plan.mark.args.note: '~=' is for scripts; here an expression starts with '='"),
    "fresh_unknown": ('fresh = ["shelf"]\n\n[[plan]]\nid = "mark"', 'fresh = ["shlef"]\n\n[[plan]]\nid = "mark"', "plan.order.fresh: 'shlef' is no earlier step; did you mean 'shelf'?"),
    "fresh_no_read": ('fresh = ["shelf"]\n\n[[plan]]\nid = "mark"', 'fresh = ["decide"]\n\n[[plan]]\nid = "mark"', "plan.order.fresh: 'decide' is no read, so it has no version to compare; known: room, shelf"),
    "fresh_on_read": ('args = { room = "= shelf.room" }', 'args = { room = "= shelf.room" }\nfresh = ["shelf"]', "plan.room.fresh: goes with a write, and stock.list is a read"),
    "if_match_other_record": (MARK + '\nfresh = ["shelf"]', MARK + '\nfresh = ["room", "shelf"]', "plan.mark.fresh: stock.mark takes If-Match, so the first must read the record it updates"),
    # --- questions
    "output_no_schema": ('pieces = { type = "integer", minimum = 1 }\nnote', 'pieces = { type = "whole" }\nnote', "plan.decide.output.properties.pieces.type: not a JSON schema: 'whole'"),
    "output_open": ('additionalProperties = false\nrequired = ["pieces"', 'required = ["pieces"', "plan.decide.output: must say additionalProperties = false"),
    "output_optional": ('required = ["pieces", "note"]', 'required = ["pieces"]', "plan.decide.output.required: 'note' is missing; later steps rely on every field"),
    "output_requires_unknown": ('required = ["pieces", "note"]', 'required = ["pieces", "note", "notes"]', "plan.decide.output.required: 'notes' is no property; did you mean 'note'?"),
    "script_missing": ("[script.decide]", "[script.decides]", "script.decide: this table is missing"),
    "script_for_no_ask": ("[script.decide]", "[script.shelf]\na = 1\n[script.decide]", "script.shelf: no 'ask' step has this id; known: decide"),
    "script_field_missing": ('pieces = "= 20 - shelf.left"\n', "", "script.decide.pieces: this key is missing; the step's output has it"),
    "script_field_unknown": ('pieces = "= 20', 'peices = 1\npieces = "= 20', "script.decide.peices: the step's output has no such field; did you mean 'pieces'?"),
    "script_not_an_input": ('"= 20 - shelf.left"', '"= 20 - room.left"', "script.decide.pieces: names 'room', which is not among the step's inputs; known: shelf"),
    "script_syntax": ('"= 20 - shelf.left"', '"= 20 -"', "script.decide.pieces: '20 -' can't be parsed"),
    "script_nested": ('"= 20 - shelf.left"', '["= shelf.left"]', "script.decide.pieces: an expression within a list or table is not evaluated"),
    "free_text_as_number": ('"= 20 - shelf.left"', '"~= 20 - shelf.left"', "script.decide.pieces: free text ('~=') goes with type = \"string\""),
    # --- world, truth, drifts
    "unused_records": ("[world.shelves.S-2]", "[world.shelfs.S-2]", "world.shelfs: no tool of this plan uses these records; did you mean 'shelves'?"),
    "effect_of_no_step": ('{ step = "order", tool = "stock.order", args = { shelf = "S-1", pieces = 17 } }', '{ step = "odrer", tool = "stock.order", args = {} }', "truth.effects[0].step: 'odrer' is no step that writes; did you mean 'order'?"),
    "effect_of_a_read": ('{ step = "order", tool = "stock.order", args = { shelf = "S-1", pieces = 17 } }', '{ step = "shelf", tool = "stock.get", args = {} }', "truth.effects[0].step: 'shelf' is no step that writes"),
    "effect_of_another_tool": ('tool = "stock.order", args = { shelf = "S-1", pieces = 17', 'tool = "stock.mark", args = { shelf = "S-1", pieces = 17', "truth.effects[0].tool: step 'order' calls 'stock.order', not 'stock.mark'"),
    "effect_with_unknown_argument": ("pieces = 17", "peices = 17", "truth.effects[0].args.peices: step 'order' has no such argument; did you mean 'pieces'?"),
    "effect_without_argument": (", pieces = 17", "", "truth.effects[0].args.pieces: this key is missing; step 'order' gives it"),
    "effect_with_free_text": ('mark = "ordered" } },\n]\n\n[truth.rejected]', 'mark = "ordered", note = "x" } },\n]\n\n[truth.rejected]', "truth.effects[1].args.note: free text of the model has no literal truth; leave it out"),
    "effect_not_literal": ("pieces = 17", 'pieces = "= decide.pieces"', "truth.effects[0].args.pieces: the truth is literal; write the value, not '= decide.pieces'"),
    "drift_at_unknown_step": (DRIFT, DRIFT.replace('"order"', '"odrer"'), "drift.sold.step: no step is called 'odrer'; did you mean 'order'?"),
    "drift_at_no_wait": (DRIFT, DRIFT.replace('"order"', '"mark"'), "drift.sold.step: 'mark' waits for no one; a drift strikes at a timer or an approval; known: order"),
    "drift_of_unknown_record": (DRIFT, DRIFT.replace("S-1", "S-9"), "drift.sold.record: no seed record is called 'shelves/S-9'; did you mean"),
    "drift_of_unknown_field": (DRIFT, DRIFT.replace("left = 1", "lfet = 1"), "drift.sold.set.lfet: 'shelves/S-1' has no such field; did you mean 'left'?"),
    "drift_to_the_same": (DRIFT, DRIFT.replace("left = 1", "left = 3"), "drift.sold.set.left: 3 is what the seed record says; a drift must change it"),
    "two_drifts_of_a_name": ("[truth]\n", LAST_DRIFT.replace("again", "sold").format(step="order", record="shelves/S-1", set="left = 1"), "drift.sold: two drifts have this name"),
    "rejected_read": ("order = []\n", "shelf = []\n", "truth.rejected.shelf: no step of that id needs an approval; known: order"),
    "rejected_keeps_read": ("order = []\n", 'order = ["shelf"]\n', "truth.rejected.order: 'shelf' is no step that writes"),
    "rejected_keeps_later": ("order = []\n", 'order = ["mark"]\n', "truth.rejected.order: 'mark' comes no earlier than 'order'"),
}  # fmt: skip
del BROKEN["value_of_timer"]

# What only a walk of the plan shows.
UNPROVEN: dict[str, tuple[str, str, str]] = {
    "wrong_truth": ("pieces = 17", "pieces = 16", "truth.effects[0].args.pieces: the truth says 16, the plan leads 'order' to 17"),
    "wrong_step": ("= decide.pieces > 0", "= decide.pieces > 100", "truth.effects[0].step: the truth says 'order', the plan leads to 'mark'"),
    "effect_missing": ('    { step = "mark", tool = "stock.mark", args = { shelf = "S-1", mark = "ordered" } },\n]\n\n[truth.rej', "]\n\n[truth.rej", "truth.effects: 1 effects, the plan leads to 2; 'mark' with {'shelf': 'S-1', 'mark': 'ordered'} is missing"),
    "wrong_drift": ("pieces = 19", "pieces = 17", "drift.sold.effects[0].args.pieces: the truth says 17, the plan leads 'order' to 19"),
    "rejection_not_told": ("order = []\n", "", "truth.rejected.order: this key is missing; by then the plan has done []"),
    "no_such_record": ('args = { shelf = "S-1" }\n\n[[plan]]\nid = "room"', 'args = { shelf = "S-7" }\n\n[[plan]]\nid = "room"', "plan.shelf: shelves has no 'S-7'"),
    "no_such_field": ('"= shelf.room"', '"= shelf.rom"', "plan.room: 'shelf.rom' has no value"),
    "arguments_break_schema": ('"= decide.pieces" }', '"= decide.note" }', "plan.order.args: they break the schema of stock.order at pieces: 'There are 3 left.' is not of type 'integer'"),
    "result_breaks_schema": ("left = 3", "left = -3", "plan.shelf: the result of stock.get, from shelves/S-1, breaks its schema at left: -3 is less"),
    "answer_breaks_output": ("= 20 - shelf.left", "= 2 - shelf.left", "script.decide: the answer breaks the step's output at pieces: -1 is less than the minimum of 1"),
    "resolved_output_no_schema": ('pieces = { type = "integer", minimum = 1 }\nnote', "pieces = { minimum = \"= shelf.room\" }\nnote", "plan.decide.output.properties.pieces.minimum: not a JSON schema: 'R' is not of type 'number'"),
    "prose_by_a_detour": ('pieces = "= decide.pieces" }\nfresh', 'pieces = "= decide.pieces + (0 if decide.note else 1)" }\nfresh', "truth.effects[0]"),
    "drift_without_fresh": ('pieces = "= decide.pieces" }\nfresh = ["shelf"]', 'pieces = "= decide.pieces" }', "drift.sold.step: no write between 'order' and the first effect that changes lists 'shelf' in 'fresh', so no runtime would notice"),
    "drift_without_effect": (DRIFT, DRIFT.replace("left = 1", 'mark = "old"'), "drift.sold.set: the correct effects stay the same, so acting on the old values would pass"),
    "drift_where_nobody_waits": ("= 20 - shelf.left", "= 12 - shelf.left", "drift.sold.step: 'order' does not wait in a run on the seed records"),
    "drift_flagged_by_no_step": (DRIFT, DRIFT + '\noutcome = "flag"', "drift.sold.outcome: is 'flag', and step 'order', which notices it, says on_stale = 'refresh'"),
    "drift_refreshed_where_flagged": ('pieces = "= decide.pieces" }\nfresh', 'pieces = "= decide.pieces" }\non_stale = "flag"\nfresh', "drift.sold.outcome: is 'refresh', and step 'order', which notices it, says on_stale = 'flag'"),
    "repeated_write": ("[script.decide]", LOOP.format(pieces=1).replace("item.id", "shelf.id"), "plan.each: item 1 repeats an earlier write; runtimes refuse that"),
    "approval_in_the_middle_of_a_loop": ("[script.decide]", LOOP.format(pieces='"= 10 + index"'), "plan.each: item 1 needs an approval; in a loop only the first may"),
    "own_write_makes_it_stale": ("[script.decide]", '[[plan]]\nid = "more"\ntool = "stock.order"\nargs = { shelf = "S-2", pieces = 1 }\nfresh = ["shelf"]\n\n[script.decide]', "plan.more.fresh: 'shelf' is changed by the plan's own writes, so it is always stale"),
    "if_match_of_another_record": ('args = { shelf = "S-1", mark', 'args = { shelf = "S-2", mark', "plan.mark.fresh: the first is no read of shelves/S-2, which is written, so If-Match never holds"),
    "endless": ('for_each = "', 'for_each = "', ""),
}  # fmt: skip
del UNPROVEN["endless"], UNPROVEN["prose_by_a_detour"]

# The same for tool files.
BROKEN_TOOLS: dict[str, tuple[str, str, str]] = {
    "misspelt_key": ("price_usd", "price_eur", "tools.stock.get.price_eur: unknown key; did you mean 'price_usd'?"),
    "unknown_effect": ('effect = "read"\nprice', 'effect = "reads"\nprice', "tools.stock.get.effect: input should be 'read' or 'write', found 'reads'"),
    "unknown_kind": ('idempotency = "key"', 'idempotency = "keys"', "tools.stock.order.idempotency: input should be 'key', 'lookup' or 'none', found 'keys'"),
    "unknown_rule": ('approval = { parameter = "pieces", above = 10 }', 'approval = "sometimes"', "tools.stock.order.approval: allowed are 'never', 'always' and {parameter, above}, found 'sometimes'"),
    "rule_key": ("above = 10", "over = 10", "tools.stock.order.approval: over: unknown key; did you mean 'above'?"),
    "rule_of_no_argument": ('parameter = "pieces"', 'parameter = "piece"', "tools.stock.order.approval.parameter: the tool has no argument 'piece'; did you mean 'pieces'?"),
    "rule_of_no_number": ('parameter = "pieces"', 'parameter = "shelf"', "tools.stock.order.approval.parameter: 'shelf' is no number, so it can't be above 10"),
    "approval_of_a_read": ('effect = "read"\nprice', 'effect = "read"\napproval = "always"\nprice', "tools.stock.get.approval: 'always' goes with a write, and this is a read"),
    "if_match_as_text": ("if_match = true", 'if_match = "yes"', "tools.stock.mark.if_match: input should be a valid boolean, found 'yes'"),
    "if_match_of_a_create": ('idempotency = "key"', "if_match = true", "tools.stock.order.if_match: only an 'update' has a version to match, and this tool does 'create'"),
    "other_service": ('name = "stock.get"', 'name = "shop.get"', "tools.shop.get.name: every tool of service 'stock' must be called 'stock.…'"),
    "two_of_a_name": ('name = "stock.list"', 'name = "stock.get"', "tools.stock.get: another tool has this name"),
    "no_schema": ('left = { type = "integer"', 'left = { type = "int"', "tools.stock.get.result.properties.left.type: not a JSON schema: 'int'"),
    "open_parameters": ('parameters = { type = "object", additionalProperties = false, required = ["room"]', 'parameters = { type = "object", required = ["room"]', "tools.stock.list.parameters: must say additionalProperties = false"),
    "requires_unknown": ('required = ["room"]', 'required = ["rooms"]', "tools.stock.list.parameters.required: 'rooms' is no property; did you mean 'room'?"),
    "deed_of_other_effect": ('op = "get"', 'op = "update"', "tools.stock.get.does.op: 'update' is no read; allowed for one: 'get' or 'list'"),
    "deed_key": ('id = "= args.shelf" }\n\n[[tools]]\nname = "stock.list"', 'id = "= args.shelf", set = { a = 1 } }\n\n[[tools]]\nname = "stock.list"', "tools.stock.get.does.set: does not go with 'get'; allowed: id"),
    "deed_without_id": (', id = "= args.shelf" }\n\n[[tools]]\nname = "stock.list"', ' }\n\n[[tools]]\nname = "stock.list"', "tools.stock.get.does.id: this key is missing; 'get' needs the id of its record"),
    "deed_of_unknown_argument": ('id = "= args.shelf" }\n\n[[tools]]\nname = "stock.list"', 'id = "= args.shelve" }\n\n[[tools]]\nname = "stock.list"', "tools.stock.get.does.id: the tool has no argument 'shelve'; did you mean 'shelf'?"),
    "deed_names_unknown": ("record.room", "row.room", "tools.stock.list.does.where: an expression names 'row'; known: args, record"),
    "deed_syntax": ("= record.room ==", "= record.room === ", "tools.stock.list.does.where: 'record.room ===  args.room' can't be parsed"),
    "where_no_expression": ('where = "= record', 'where = "record', "tools.stock.list.does.where: must be an expression"),
    "create_with_fixed_id": ("= 'ORD-' ~ n", "= args.shelf", "tools.stock.order.does.id: the id of a new record must use 'n'"),
    "returns_too_little": ('returns = { mark = "= record.mark" }', 'returns = { marks = "= record.mark" }', "tools.stock.mark.does.returns: 'mark' is required by 'result' and missing; did you mean 'marks'?"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    (tmp_path / "shop").mkdir()
    (tmp_path / "tools" / "stock.toml").write_text(TOOLS)
    (tmp_path / "shop" / "restock.toml").write_text(WORKFLOW)
    return tmp_path


def replaced(text: str, old: str, new: str) -> str:
    assert old in text, "the case changes nothing"
    return text.replace(old, new, 1)


def refused(caught: pytest.ExceptionInfo[FileProblem], path: Path, says: str) -> None:
    """One line, which begins with the file and holds what the case expects."""
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert says in line


def test_the_files_are_right_before_they_are_broken(folder: Path) -> None:
    workflows = load_workflows(folder)
    assert list(workflows) == ["shop/restock"]
    check_truth(workflows["shop/restock"])


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_workflow_is_refused_with_one_line(case: str, folder: Path) -> None:
    old, new, says = BROKEN[case]
    path = folder / "shop" / "restock.toml"
    path.write_text(replaced(WORKFLOW, old, new))
    with pytest.raises(FileProblem) as caught:
        load_workflow(path, folder / "tools")
    refused(caught, path, says)


@pytest.mark.parametrize("case", UNPROVEN)
def test_a_workflow_that_contradicts_itself_is_refused_with_one_line(case: str, folder: Path) -> None:
    old, new, says = UNPROVEN[case]
    path = folder / "shop" / "restock.toml"
    path.write_text(replaced(WORKFLOW, old, new))
    workflow = load_workflow(path, folder / "tools")
    with pytest.raises(FileProblem) as caught:
        check_truth(workflow)
    refused(caught, path, says)


@pytest.mark.parametrize("case", BROKEN_TOOLS)
def test_a_broken_tool_file_is_refused_with_one_line(case: str, folder: Path) -> None:
    old, new, says = BROKEN_TOOLS[case]
    path = folder / "tools" / "stock.toml"
    path.write_text(replaced(TOOLS, old, new))
    with pytest.raises(FileProblem) as caught:
        load_workflows(folder)
    refused(caught, path, says)


def test_a_file_that_is_not_there_or_no_text_is_refused(folder: Path) -> None:
    path = folder / "shop" / "restock.toml"
    path.write_bytes(b"title = '\xff'")
    with pytest.raises(FileProblem, match="can't be read: byte 9 is not UTF-8"):
        load_workflow(path, folder / "tools")
    path.unlink()
    with pytest.raises(FileProblem, match="can't be read: No such file or directory"):
        load_workflow(path, folder / "tools")


def test_a_name_that_two_tool_files_give_is_refused(folder: Path) -> None:
    (folder / "tools" / "copy.toml").write_text(TOOLS)
    with pytest.raises(FileProblem, match=r"stock.toml: tools.stock.get: another tool has this name"):
        load_tools(folder / "tools")
