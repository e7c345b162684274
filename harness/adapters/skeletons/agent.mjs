// An agent for Kintsugi: a plain ReAct loop for each run. Put your own runtime where `carry` is. Node.js 18 or newer.
//
// It remembers nothing: killed and started again, it begins at the top, and does twice what had been done. What it
// would take to do better is in docs/PROTOCOL.md, "What may have happened".

import { randomUUID } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const env = process.env;
const TIME_SCALE = Number(env.KINTSUGI_TIME_SCALE);

const SYSTEM = `You carry out a task by calling functions, one at a time, until it is done. Some need a person's
approval: call request_approval with the function's name and its exact arguments first. If it is refused, stop. When
everything is done, answer with a short summary and no call.`;

class Failed extends Error {}

class Run {
  constructor(id, plan) {
    this.id = id;
    this.plan = plan;
    this.approvals = new Map();
    this.tools = new Map(Object.keys(plan.tools).map((name) => [name.replaceAll(".", "__"), name]));
  }

  // Status and JSON of an answer, tried a few times; every try of a call carries the same key.
  async post(url, body, seconds, headers = {}) {
    const policy = this.plan.policy;
    let problem = "", wait = 0;
    for (let attempt = 0; attempt < policy.attempts; attempt++) {
      if (attempt > 0) {
        const backoff = policy.backoff_base_seconds * 2 ** (attempt - 1);
        await sleep(1000 * Math.max(wait, Math.min(backoff, policy.backoff_cap_seconds)));
      }
      try {
        const answer = await fetch(url, {
          method: "POST",
          body: JSON.stringify(body),
          headers: { Authorization: `Bearer ${env.KINTSUGI_TOKEN}`, "Kintsugi-Run": this.id, ...headers },
          signal: AbortSignal.timeout(1000 * seconds),
          redirect: "error",
        });
        if (answer.status !== 429 && answer.status < 500) return [answer.status, await answer.json()];
        problem = `status ${answer.status}`;
        wait = Number(answer.headers.get("Retry-After")) || 0;
      } catch (error) {
        problem = String(error.cause ?? error);
        wait = 0;
      }
    }
    throw new Failed(`${url}: ${problem}`);
  }

  // Lets the model work through the task; its last words.
  async carry() {
    const messages = [{ role: "system", content: SYSTEM }, { role: "user", content: this.plan.task }];
    for (let turn = 0; turn < this.plan.policy.model_calls_max; turn++) {
      const message = await this.askModel(messages);
      messages.push(message);
      if (!message.tool_calls?.length) return String(message.content);
      for (const call of message.tool_calls) {
        const content = JSON.stringify(await this.act(call.function));
        messages.push({ role: "tool", tool_call_id: call.id, content });
      }
    }
    throw new Failed("the model was asked too often");
  }

  async askModel(messages) {
    const body = { model: this.plan.model, messages, tools: this.functions() };
    const url = `${env.KINTSUGI_MODEL_URL}/chat/completions`;
    const [status, answer] = await this.post(url, body, this.plan.policy.model_timeout_seconds);
    if (status !== 200) throw new Failed(`the model answered ${status}`);
    return answer.choices[0].message;
  }

  // Makes one call; {"result": …} or {"error": …}, as the model is told.
  async act({ name, arguments: text }) {
    let given;
    try {
      given = JSON.parse(text);
    } catch (error) {
      return { error: `the arguments are not valid JSON: ${error.message}` };
    }
    if (given === null || typeof given !== "object" || Array.isArray(given)) {
      return { error: "the arguments are not a JSON object" };
    }
    if (name === "wait") {
      const seconds = Number(given.seconds ?? 0);
      await sleep(1000 * seconds * TIME_SCALE);
      return { result: { waited_seconds: seconds } };
    }
    if (name === "request_approval") return this.askPerson(given);
    if (!this.tools.has(name)) return { error: `there is no function called ${name}` };
    return this.call(this.tools.get(name), given);
  }

  async call(tool, given) {
    const headers = {};
    const kind = { key: "Idempotency-Key", lookup: "Client-Reference" }[this.plan.tools[tool].idempotency];
    if (kind) headers[kind] = randomUUID();
    const approval = this.approvals.get(digest(tool, given));
    if (approval) headers["Approval-Token"] = approval;
    const url = `${env.KINTSUGI_TOOLS_URL}/${tool}`;
    const [status, answer] = await this.post(url, given, this.plan.policy.tool_timeout_seconds, headers);
    return status === 200 ? answer : { error: answer.error.message, status };
  }

  async askPerson(asked) {
    const tool = this.tools.get(asked.function);
    if (!tool || asked.arguments === null || typeof asked.arguments !== "object") {
      return { error: "give the function's name and its arguments, an object" };
    }
    const id = randomUUID();
    const question = { request_id: id, kind: "approval", tool, arguments: asked.arguments };
    await this.post(`${env.KINTSUGI_HUMAN_URL}/requests`, question, 5);
    let decision = null;
    while (decision === null) {
      await sleep(50);
      [, { decision }] = await this.post(`${env.KINTSUGI_HUMAN_URL}/requests/${id}`, {}, 5);
    }
    if (decision.decision === "approve") this.approvals.set(digest(tool, asked.arguments), decision.token);
    return { result: { decision: decision.decision } };
  }

  functions() {
    const offered = [...this.tools].map(([name, tool]) => ({ name, ...this.plan.tools[tool] }));
    const both = { function: { type: "string" }, arguments: { type: "object" } };
    offered.push({
      name: "request_approval",
      description: "Ask a person to approve a call.",
      parameters: { type: "object", properties: both },
    });
    offered.push({
      name: "wait",
      description: "Wait for some seconds.",
      parameters: { type: "object", properties: { seconds: { type: "number" } } },
    });
    return offered.map(({ name, description, parameters }) => (
      { type: "function", function: { name, description, parameters } }
    ));
  }

  async work() {
    let end;
    try {
      end = { status: "completed", detail: await this.carry() };
    } catch (failure) {
      if (!(failure instanceof Failed)) throw failure;
      end = { status: "failed", detail: failure.message };
    }
    await this.post(`${env.KINTSUGI_HUMAN_URL}/end`, end, 5);
  }
}

// What an approval is bound to: a tool and exactly these arguments.
function digest(tool, value) {
  const sorted = (part) => part === null || typeof part !== "object" ? part
    : Array.isArray(part) ? part.map(sorted)
      : Object.fromEntries(Object.keys(part).sort().map((key) => [key, sorted(part[key])]));
  return `${tool} ${JSON.stringify(sorted(value))}`;
}

const inbox = join(env.KINTSUGI_STATE_DIR, "inbox");
const files = (await readdir(inbox)).filter((name) => name.endsWith(".json"));
await Promise.all(files.map(async (name) => {
  const { plan } = JSON.parse(await readFile(join(inbox, name), "utf8"));
  await new Run(name.slice(0, -".json".length), plan).work();
}));
