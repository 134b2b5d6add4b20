// Communication with the server: calls, what happens while it does not answer, and the queue of labels that are not saved yet.

import { said } from "./said.js";
import { gone } from "./say.js";

export class Refused extends Error {
  constructor(detail, status) {
    super(detail);
    this.status = status;
  }
}

// The server does not answer. The page says so by itself, so the caller need not.
export class Gone extends Error {}

const AGAIN = 1000; // ms
let trying = false;

// `fetch`; without an answer it throws Gone, and the event "back" follows as soon as the server answers again.
export async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (!trying) wait();
    throw new Gone(error.message);
  }
}

async function wait() {
  trying = true;
  gone(true);
  for (let found = false; !found;) {
    await new Promise((done) => setTimeout(done, AGAIN));
    found = await fetch("/api/about").then((answer) => answer.ok, () => false);
  }
  trying = false;
  gone(false);
  dispatchEvent(new Event("back"));
}

async function call(method, path, body) {
  const answer = await reach(path, {
    method,
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body ? JSON.stringify(body) : undefined,
  });
  return (await answered(answer)).status === 204 ? null : answer.json();
}

// `answer` if it is ok; otherwise throws an error with its message.
export async function answered(answer) {
  if (answer.ok) return answer;
  const text = await answer.text();
  let detail = text.trim();
  try { detail = JSON.parse(text).detail; } catch { /* plain text */ }
  detail = typeof detail === "string" ? said(detail) : JSON.stringify(detail);
  if (answer.status >= 500 || answer.status === 403) throw new Error(detail); // 403: a restarted server has a new token
  throw new Refused(detail, answer.status);
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);

// A tab has a session of its own, which survives a reload, since undo takes back changes of this tab only.
export const session = sessionStorage.session ||= crypto.getRandomValues(new Uint32Array(2)).join("-");

const waiting = [];
let sending = null;

// callbacks: onState(number waiting, failing); onChanges(changes as saved, labels as sent); onRefused(labels, message)
export const labels = { onState() {}, onChanges() {}, onRefused() {} };

export function save(label, who) {
  waiting.push({ label, who });
  labels.onState(waiting.length, false);
  sending ||= send().finally(() => { sending = null; });
}

export const allSaved = () => sending ?? Promise.resolve();
export const unsaved = () => waiting.map((w) => w.label);

async function send() {
  let singly = 0; // how many of the first labels to send one by one, since one of them was refused
  while (waiting.length) {
    const { who } = waiting[0];
    const end = waiting.findIndex((w) => w.who !== who);
    const batch = waiting.slice(0, Math.min(end < 0 ? 1000 : end, singly ? 1 : 1000));
    const sent = batch.map((w) => w.label);
    try {
      const { changes } = await post("/api/labels", { labels: sent.map(({ seen, ...label }) => label), who, session });
      waiting.splice(0, batch.length);
      labels.onChanges(changes, sent);
    } catch (error) {
      if (error instanceof Refused && batch.length > 1) {
        singly = batch.length;
        continue;
      } else if (error instanceof Refused) {
        waiting.splice(0, batch.length);
        labels.onRefused(sent, error.message);
      } else {
        labels.onState(waiting.length, true);
        await new Promise((done) => setTimeout(done, 1000));
        continue;
      }
    }
    singly = Math.max(singly - 1, 0);
    labels.onState(waiting.length, false);
  }
}

addEventListener("beforeunload", (event) => { if (waiting.length) event.preventDefault(); });
