"""An agent for Kintsugi: a plain ReAct loop for each run. Put your own runtime where `carry` is.

It remembers nothing: killed and started again, it begins at the top, and does twice what had been done. What it would
take to do better is in docs/PROTOCOL.md, "What may have happened".
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

TOOLS, MODEL, HUMAN = (os.environ[f"KINTSUGI_{name}_URL"] for name in ("TOOLS", "MODEL", "HUMAN"))
TOKEN = os.environ["KINTSUGI_TOKEN"]
TIME_SCALE = float(os.environ["KINTSUGI_TIME_SCALE"])

SYSTEM = """You carry out a task by calling functions, one at a time, until it is done. Some need a person's approval:
call request_approval with the function's name and its exact arguments first. If it is refused, stop. When everything
is done, answer with a short summary and no call."""


class Failed(Exception):
    """The run can't go on; the text is what is reported."""


class Run:
    """One run: its plan, and the approvals it holds."""

    def __init__(self, run_id: str, plan: dict[str, Any]) -> None:
        self.run_id, self.plan = run_id, plan
        self.approvals: dict[str, str] = {}
        self.tools = {name.replace(".", "__"): name for name in plan["tools"]}

    def post(self, url: str, body: Any, seconds: float, **headers: str) -> tuple[int, Any]:
        """Status and JSON of an answer, tried a few times; every try of a call carries the same key."""
        policy = self.plan["policy"]
        sent = {"Authorization": f"Bearer {TOKEN}", "Kintsugi-Run": self.run_id, "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(url, json.dumps(body).encode(), sent)  # noqa: S310 - the harness's own
        problem, wait = "", 0.0
        for attempt in range(policy["attempts"]):
            if attempt:
                backoff = policy["backoff_base_seconds"] * 2 ** (attempt - 1)
                time.sleep(max(wait, min(backoff, policy["backoff_cap_seconds"])))
            try:
                with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 429 and error.code < 500:
                    return error.code, json.load(error)
                problem, wait = f"status {error.code}", float(error.headers.get("Retry-After") or 0)
            except (OSError, ValueError) as error:
                problem, wait = str(error), 0.0
        raise Failed(f"{url}: {problem}")

    def carry(self) -> str:
        """Let the model work through the task; its last words."""
        messages: list[Any] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": self.plan["task"]},
        ]
        for _ in range(self.plan["policy"]["model_calls_max"]):
            message = self.ask_model(messages)
            messages.append(message)
            if not message.get("tool_calls"):
                return str(message.get("content"))
            for call in message["tool_calls"]:
                result = json.dumps(self.act(call["function"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        raise Failed("the model was asked too often")

    def ask_model(self, messages: list[Any]) -> dict[str, Any]:
        """The model's next message."""
        body = {"model": self.plan["model"], "messages": messages, "tools": self.functions()}
        seconds = self.plan["policy"]["model_timeout_seconds"]
        status, answer = self.post(f"{MODEL}/chat/completions", body, seconds)
        if status != 200:
            raise Failed(f"the model answered {status}")
        message: dict[str, Any] = answer["choices"][0]["message"]
        return message

    def act(self, function: dict[str, str]) -> Any:
        """Make one call; ``{"result": …}`` or ``{"error": …}``, as the model is told."""
        try:
            arguments = json.loads(function["arguments"])
        except ValueError as error:
            return {"error": f"the arguments are not valid JSON: {error}"}
        if not isinstance(arguments, dict):
            return {"error": "the arguments are not a JSON object"}
        name = function["name"]
        if name == "wait":
            time.sleep(float(arguments.get("seconds", 0)) * TIME_SCALE)
            return {"result": {"waited_seconds": arguments.get("seconds", 0)}}
        if name == "request_approval":
            return self.ask_person(arguments)
        if name not in self.tools:
            return {"error": f"there is no function called {name!r}"}
        return self.call(self.tools[name], arguments)

    def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        """Call a tool, with the approval that is held for exactly these arguments."""
        kind = {"key": "Idempotency_Key", "lookup": "Client_Reference"}.get(self.plan["tools"][tool]["idempotency"])
        headers = {kind: str(uuid.uuid4())} if kind else {}
        approval = self.approvals.get(digest(tool, arguments))
        if approval:
            headers["Approval_Token"] = approval
        seconds = self.plan["policy"]["tool_timeout_seconds"]
        status, answer = self.post(f"{TOOLS}/{tool}", arguments, seconds, **headers)
        return answer if status == 200 else {"error": answer["error"]["message"], "status": status}

    def ask_person(self, asked: dict[str, Any]) -> Any:
        """Have a call approved, however long that takes."""
        tool, arguments = self.tools.get(str(asked.get("function"))), asked.get("arguments")
        if tool is None or not isinstance(arguments, dict):
            return {"error": "give the function's name and its arguments, an object"}
        request_id = str(uuid.uuid4())
        question = {"request_id": request_id, "kind": "approval", "tool": tool, "arguments": arguments}
        self.post(f"{HUMAN}/requests", question, 5)
        decision = None
        while decision is None:
            time.sleep(0.05)
            decision = self.post(f"{HUMAN}/requests/{request_id}", {}, 5)[1]["decision"]
        if decision["decision"] == "approve":
            self.approvals[digest(tool, arguments)] = decision["token"]
        return {"result": {"decision": decision["decision"]}}

    def functions(self) -> list[Any]:
        """The tools, and what this agent offers beside them, as the model is told."""
        offered = [
            (name, self.plan["tools"][tool]["description"], self.plan["tools"][tool]["parameters"])
            for name, tool in self.tools.items()
        ]
        both = {"function": {"type": "string"}, "arguments": {"type": "object"}}
        offered.append(("request_approval", "Ask a person to approve a call.", {"type": "object", "properties": both}))
        seconds = {"seconds": {"type": "number"}}
        offered.append(("wait", "Wait for some seconds.", {"type": "object", "properties": seconds}))
        return [
            {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}
            for name, text, parameters in offered
        ]

    def work(self) -> None:
        """Carry the run, and report how it ended."""
        try:
            end = {"status": "completed", "detail": self.carry()}
        except Failed as failure:
            end = {"status": "failed", "detail": str(failure)}
        self.post(f"{HUMAN}/end", end, 5)


def digest(tool: str, arguments: dict[str, Any]) -> str:
    """What an approval is bound to: a tool and exactly these arguments."""
    return f"{tool} {json.dumps(arguments, sort_keys=True)}"


def main() -> None:
    """Do every run in the inbox, all at once, and end when the last one has ended."""
    inbox = Path(os.environ["KINTSUGI_STATE_DIR"], "inbox")
    runs = [Run(path.stem, json.loads(path.read_text())["plan"]) for path in sorted(inbox.glob("*.json"))]
    threads = [threading.Thread(target=run.work) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
