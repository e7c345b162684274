"""A whole agent in under 40 lines: a ReAct loop without retries or memory. Killed, it begins again at the top."""

import json
import os
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen


def carry(path: Path) -> None:
    def post(service: str, where: str, body: Any) -> Any:
        url, data = os.environ[f"KINTSUGI_{service}_URL"] + where, json.dumps(body).encode()
        return json.load(urlopen(Request(url, data, headers)))  # noqa: S310 - the harness's own

    headers = {"Authorization": f"Bearer {os.environ['KINTSUGI_TOKEN']}", "Kintsugi-Run": path.stem}
    plan = json.loads(path.read_text())["plan"]
    offer = [{"type": "function", "function": {"name": n.replace(".", "__"), **t}} for n, t in plan["tools"].items()]
    ask = {"model": plan["model"], "messages": [{"role": "user", "content": plan["task"]}], "tools": offer}
    while "tool_calls" in ask["messages"][-1] or ask["messages"][-1]["role"] != "assistant":
        ask["messages"].append(post("MODEL", "/chat/completions", ask)["choices"][0]["message"])
        for call in ask["messages"][-1].get("tool_calls", []):
            name, given = call["function"]["name"].replace("__", "."), json.loads(call["function"]["arguments"])
            if name == "wait":
                got = time.sleep(given["seconds"] * float(os.environ["KINTSUGI_TIME_SCALE"]))  # type: ignore[func-returns-value]
            elif name == "request_approval":
                asked = {"kind": "approval", **given, "tool": given["function"].replace("__", ".")}
                where = f"/requests/{post('HUMAN', '/requests', asked)['request_id']}"
                while (got := post("HUMAN", where, None)["decision"]) is None:
                    time.sleep(0.05)
                headers["Approval-Token"] = got.pop("token", "")
            else:
                got = post("TOOLS", f"/{name}", given)["result"]
            ask["messages"].append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"result": got})})
    post("HUMAN", "/end", {"status": "completed"})


ThreadPool(50).map(carry, Path(os.environ["KINTSUGI_STATE_DIR"], "inbox").glob("*.json"))
