# mypy: ignore-errors
# ruff: noqa: ANN001, ANN003, ANN201, ANN202, ANN204
import inspect
from enum import StrEnum

from pydantic import create_model


class ToolType(StrEnum):
    READ = "read"
    WRITE = "write"
    GENERIC = "generic"


def is_tool(tool_type=ToolType.READ):
    def mark(function):
        function.tool_type = tool_type
        return function

    return mark


class Tool:
    def __init__(self, function):
        signature = inspect.signature(function)
        fields = {
            name: (each.annotation, ... if each.default is each.empty else each.default)
            for name, each in signature.parameters.items()
        }
        self.name, self.text = function.__name__, inspect.getdoc(function)
        self.params = create_model("parameters", **fields)
        self.returns = create_model("returns", returns=(signature.return_annotation, ...))

    @property
    def openai_schema(self):
        described = {"name": self.name, "description": self.text, "parameters": self.params.model_json_schema()}
        return {"type": "function", "function": described}


class ToolKitBase:
    def __init__(self, db):
        self.db = db

    @property
    def tools(self):
        marked = [name for name, each in vars(type(self)).items() if hasattr(each, "tool_type")]
        return {name: getattr(self, name) for name in marked}

    def get_tools(self):
        return {name: Tool(function) for name, function in self.tools.items()}

    def use_tool(self, tool_name, **arguments):
        return self.tools[tool_name](**arguments)

    def tool_mutates_state(self, tool_name):
        return self.tools[tool_name].tool_type == ToolType.WRITE
