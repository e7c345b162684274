// A plain Node.js agent: a ReAct loop, and a journal from which it goes on after a kill. No framework.
//
// Every outcome (a reply of the model, a result of a tool, a decision, the end of a wait) is in the journal before it is
// used. After a crash the loop runs again and is given what was recorded. What was begun and not recorded is resolved by
// what the tool's API allows: the same key again, a look for the effect, or a person is asked.

import { createHash } from "node:crypto";
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, truncateSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const env = process.env;
const INBOX = join(env.KINTSUGI_STATE_DIR, "inbox");
const JOURNALS = join(env.KINTSUGI_STATE_DIR, "journals");
const PERSON_SECONDS = 5;

class Failed extends Error {}

// Entries by name. What `set` was given is on the disk when it returns.
class Journal {
  constructor(path) {
    const text = existsSync(path) ? readFileSync(path, "utf8") : "";
    const whole = text.slice(0, text.lastIndexOf("\n") + 1); // A kill may have cut the last line short.
    if (whole !== text) truncateSync(path, Buffer.byteLength(whole));
    this.entries = Object.assign({}, ...whole.split("\n").filter(Boolean).map((line) => JSON.parse(line)));
    this.file = openSync(path, "a");
  }

  set(entries) {
    writeSync(this.file, `${JSON.stringify(entries)}\n`);
    fsyncSync(this.file);
    Object.assign(this.entries, entries);
  }

  close() {
    closeSync(this.file);
  }
}

class Run {
  constructor(id) {
    this.id = id;
    this.plan = JSON.parse(readFileSync(join(INBOX, `${id}.json`), "utf8")).plan;
    this.journal = new Journal(join(JOURNALS, `${id}.jsonl`));
    this.tools = new Map(Object.keys(this.plan.tools).map((name) => [name.replaceAll(".", "__"), name]));
    this.approvals = new Map();
  }

  // What was recorded under a name, or what `work` comes to, once it is recorded.
  async once(name, work) {
    if (!(name in this.journal.entries)) this.journal.set({ [name]: await work() });
    return this.journal.entries[name];
  }

  // One attempt: {status, body}, or {unknown} where it may have happened, or {refused} where it can't have.
  async attempt(url, body, seconds, headers = {}) {
    try {
      const answer = await fetch(url, {
        method: "POST",
        body: JSON.stringify(body),
        headers: { Authorization: `Bearer ${env.KINTSUGI_TOKEN}`, "Kintsugi-Run": this.id, ...headers },
        signal: AbortSignal.timeout(1000 * seconds),
        redirect: "error",
      });
      const retryAfter = Number(answer.headers.get("Retry-After")) || 0;
      if (answer.status === 429 || answer.status === 503) return { refused: `status ${answer.status}`, retryAfter };
      if (answer.status >= 500) return { unknown: `status ${answer.status}`, retryAfter };
      return { status: answer.status, body: await answer.json() };
    } catch (error) {
      const refused = error.cause?.code === "ECONNREFUSED";
      return { [refused ? "refused" : "unknown"]: String(error.cause ?? error), retryAfter: 0 };
    }
  }

  async backOff(failures, retryAfter) {
    const { backoff_base_seconds: base, backoff_cap_seconds: cap } = this.plan.policy;
    await sleep(1000 * Math.max(retryAfter, Math.random() * Math.min(cap, base * 2 ** (failures - 1))));
  }

  // Repeats what may be repeated freely, until it is answered.
  async persist(url, body, seconds) {
    for (let failures = 1; ; failures++) {
      const outcome = await this.attempt(url, body, seconds);
      if (outcome.status === 200) return outcome.body;
      if (outcome.status) throw new Failed(`${url}: ${outcome.body.error.message}`);
      if (failures >= this.plan.policy.attempts) throw new Failed(`${url}: ${outcome.refused ?? outcome.unknown}`);
      await this.backOff(failures, outcome.retryAfter);
    }
  }

  async carry() {
    const messages = [{ role: "system", content: SYSTEM }, { role: "user", content: this.plan.task }];
    for (let turn = 1; turn <= this.plan.policy.model_calls_max; turn++) {
      const message = await this.once(`turn ${turn}`, async () => {
        const body = { model: this.plan.model, messages, tools: this.functions() };
        const url = `${env.KINTSUGI_MODEL_URL}/chat/completions`;
        return (await this.persist(url, body, this.plan.policy.model_timeout_seconds)).choices[0].message;
      });
      messages.push(message);
      if (!message.tool_calls?.length) return String(message.content);
      for (const [position, call] of message.tool_calls.entries()) {
        const content = JSON.stringify(await this.act(`turn ${turn}.${position}`, call.function));
        messages.push({ role: "tool", tool_call_id: call.id, content });
      }
    }
    throw new Failed("the model was asked too often");
  }

  async act(name, { name: function_, arguments: text }) {
    let given;
    try {
      given = JSON.parse(text);
    } catch (error) {
      return { error: `the arguments are not valid JSON: ${error.message}` };
    }
    if (given === null || typeof given !== "object") return { error: "the arguments are not a JSON object" };
    if (function_ === "wait") {
      const scaled = 1000 * Number(given.seconds ?? 0) * Number(env.KINTSUGI_TIME_SCALE);
      const until = await this.once(name, () => Date.now() + scaled);
      await sleep(Math.max(0, until - Date.now()));
      return { result: { waited_seconds: given.seconds } };
    }
    if (function_ === "request_approval") return this.approve(name, given);
    const tool = this.tools.get(function_);
    if (!tool) return { error: `there is no function called ${function_}` };
    return this.once(name, () => this.call(name, tool, given));
  }

  async approve(name, { function: function_, arguments: given }) {
    const tool = this.tools.get(function_);
    if (!tool || given === null || typeof given !== "object") {
      return { error: "give the function's name and its arguments, an object" };
    }
    const decision = await this.ask(name, { kind: "approval", tool, arguments: given });
    if (decision.decision === "approve") this.approvals.set(digest([tool, given]), decision.token);
    return { result: { decision: decision.decision } };
  }

  // A person's decision. Its id is that of the call, so that asking again after a crash is no second question.
  ask(name, question) {
    return this.once(name, async () => {
      const id = digest([this.id, name]);
      await this.persist(`${env.KINTSUGI_HUMAN_URL}/requests`, { request_id: id, ...question }, PERSON_SECONDS);
      for (;;) {
        const { decision } = await this.persist(`${env.KINTSUGI_HUMAN_URL}/requests/${id}`, {}, PERSON_SECONDS);
        if (decision) return decision;
        await sleep(50);
      }
    });
  }

  // A tool's outcome. `sent` in the journal says that an attempt was begun which may have had its effect.
  async call(name, tool, given) {
    const { effect, idempotency } = this.plan.tools[tool];
    const seconds = this.plan.policy.tool_timeout_seconds;
    const url = `${env.KINTSUGI_TOOLS_URL}/${tool}`;
    const [sent, key] = [`${name} sent`, digest([this.id, name])];
    const resolvable = effect === "read" || idempotency === "key";
    const headers = {};
    if (idempotency === "key") headers["Idempotency-Key"] = key;
    if (idempotency === "lookup") headers["Client-Reference"] = key;
    const token = this.approvals.get(digest([tool, given]));
    if (token) headers["Approval-Token"] = token;
    for (let failures = 0; failures < this.plan.policy.attempts;) {
      let outcome;
      if (this.journal.entries[sent] && idempotency === "none") {
        const answer = await this.doubt(name, tool, given);
        if (answer.decision === "happened") return { result: answer.result };
        this.journal.set({ [sent]: false });
      } else if (this.journal.entries[sent]) {
        outcome = await this.attempt(`${url}/find`, {}, seconds, headers);
        if (outcome.status === 200) return outcome.body;
        if (outcome.status === 404) this.journal.set({ [sent]: false });
      } else {
        if (!resolvable) this.journal.set({ [sent]: true });
        outcome = await this.attempt(url, given, seconds, headers);
        if (outcome.status === 200) return outcome.body;
        if (!resolvable && !outcome.unknown) this.journal.set({ [sent]: false });
        if (outcome.status) return { error: outcome.body.error.message, status: outcome.status };
      }
      if (outcome && !outcome.status) {
        failures += 1;
        await this.backOff(failures, outcome.retryAfter);
      }
    }
    throw new Failed(`${tool}: tried ${this.plan.policy.attempts} times`);
  }

  // Nothing a program can do tells whether it happened: a person looks. Each doubt is a question of its own.
  async doubt(name, tool, given) {
    const asked = Object.keys(this.journal.entries).filter((entry) => entry.startsWith(`${name} doubt`)).length;
    const question = { kind: "in_doubt", tool, arguments: given, evidence: { sent: true, answered: false } };
    const answer = await this.ask(`${name} doubt ${asked + 1}`, question);
    if (answer.decision === "stop") throw new Failed(`${tool}: a person stopped the run`);
    return answer;
  }

  functions() {
    const offered = [...this.tools].map(([name, tool]) => ({ name, ...this.plan.tools[tool] }));
    const both = { function: { type: "string" }, arguments: { type: "object" } };
    offered.push({
      name: "request_approval",
      description: "Ask a person whether a function may be called with exactly these arguments.",
      parameters: { type: "object", properties: both },
    });
    offered.push({
      name: "wait",
      description: "Wait for a number of seconds.",
      parameters: { type: "object", properties: { seconds: { type: "number" } } },
    });
    return offered.map(({ name, description, parameters }) => (
      { type: "function", function: { name, description, parameters } }
    ));
  }

  async work() {
    if (!this.journal.entries.reported) {
      const end = await this.once("end", async () => {
        try {
          return { status: "completed", detail: await this.carry() };
        } catch (failure) {
          if (!(failure instanceof Failed)) throw failure;
          return { status: "failed", detail: failure.message };
        }
      });
      await this.persist(`${env.KINTSUGI_HUMAN_URL}/end`, end, PERSON_SECONDS);
      this.journal.set({ reported: true });
    }
    this.journal.close();
  }
}

const SYSTEM = `You are an agent that carries out a task by calling functions, one at a time, until it is done. Some
functions need a person's approval: call request_approval with the function's name and its exact arguments first, and
then make the call with the same arguments. If approval is refused, stop. When everything is done, answer with a short
summary and no call.`;

// The same for equal values, whatever the order of their keys.
function digest(value) {
  const sorted = (part) => part === null || typeof part !== "object" ? part
    : Array.isArray(part) ? part.map(sorted)
      : Object.fromEntries(Object.keys(part).sort().map((key) => [key, sorted(part[key])]));
  return createHash("sha256").update(JSON.stringify(sorted(value))).digest("hex");
}

// Takes up every run as it comes, and those that an earlier life of this worker has left, until it is killed.
mkdirSync(JOURNALS, { recursive: true });
for (const taken = new Set(); ; await sleep(20)) {
  for (const file of readdirSync(INBOX).filter((name) => name.endsWith(".json") && !taken.has(name))) {
    taken.add(file);
    new Run(file.slice(0, -".json".length)).work();
  }
}
