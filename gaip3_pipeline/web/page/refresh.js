// The refresh tab: the plan and its duration, the progress, and what changed.

import { get, post } from "./server.js";
import { toast } from "./say.js";

const $ = (id) => document.getElementById(id);
const POLL = 1000; // ms

let shownId = null, running = false;

export function startRefresh() {
  addEventListener("tab", (event) => { if (event.detail === "refresh") { plan(); look(); } });
  setInterval(() => { if (!document.hidden && !$("refresh").hidden) look(); }, POLL);
  $("start").onclick = start;
  $("stop").onclick = () => post("/api/refreshes/stop", {}).catch((e) => toast(e.message));
  $("which").onchange = () => { shownId = $("which").value; look(); };
}

async function plan() {
  if (running) return;
  $("start").disabled = true;
  $("summary").textContent = "computing the plan …";
  try {
    const found = await get("/api/plan");
    $("summary").textContent = found.summary;
    $("start").disabled = !found.plan.length;
    $("plan").hidden = !found.plan.length;
    $("warmly").hidden = !found.plan.some((p) => p.name === "nvae_weights" && p.seconds !== null);
    const lines = found.plan.map((p) => row("td", p.name, p.reasons.join("; "), p.seconds === null ? "unknown" : duration(p.seconds)));
    $("plan").querySelector("table").replaceChildren(row("th", "asset", "reason", "last duration"), ...lines);
  } catch (error) {
    $("summary").textContent = error.message;
    $("start").disabled = false; // a refresh may work nevertheless, or report the same error
  }
}

async function start() {
  $("start").disabled = true;
  try {
    await post("/api/refreshes", { warm_start: $("warm").checked && !$("warmly").hidden });
    shownId = null;
    running = true;
    await look();
  } catch (error) {
    toast(error.message);
    $("start").disabled = false;
  }
}

async function look() {
  let found;
  try { found = await get("/api/refreshes"); } catch { return; }
  const records = found.refreshes;
  const now = records.find((r) => r.state === "running");
  const was = running;
  running = Boolean(now) || found.starting;
  $("start").disabled = $("start").disabled || running;
  $("stop").hidden = !running;
  $("running").hidden = !running;
  if (running) drawRunning(now);
  if (was && !running) {
    shownId = null;
    await plan();
    if (found.problem) toast(found.problem);
  }
  const done = records.filter((r) => r.state !== "running");
  $("done").hidden = !done.length;
  if (done.length) drawDone(done);
}

function drawRunning(record) {
  if (!record) { $("now").textContent = "starting …"; $("assets").replaceChildren(); $("bar").removeAttribute("value"); return; }
  const entries = Object.entries(record.assets);
  const finished = entries.filter(([, a]) => ["made", "fresh", "failed"].includes(a.state)).length;
  const step = record.progress;
  const seconds = Object.fromEntries(record.plan.map((p) => [p.name, p.seconds ?? 1]));
  const total = entries.reduce((sum, [name]) => sum + (seconds[name] ?? 1), 0);
  const past = entries.reduce((sum, [name, a]) => {
    if (["made", "fresh", "failed"].includes(a.state)) return sum + (seconds[name] ?? 1);
    return a.state === "running" && step?.total ? sum + ((seconds[name] ?? 1) * step.done) / step.total : sum;
  }, 0);
  $("bar").value = total ? past / total : 0;
  const left = step ? ` · ${step.label} ${step.done} of ${step.total}${step.left_s ? `, ${duration(step.left_s)} left` : ""}` : "";
  $("now").textContent = `${record.summary}\n${finished} of up to ${entries.length} assets${left}`;
  $("assets").replaceChildren(...entries.map(([name, a]) => {
    const line = document.createElement("li");
    line.className = a.state;
    line.textContent = `${{ made: "✓", fresh: "=", failed: "✗", running: "…", waiting: "·" }[a.state]} ${name}${a.seconds ? ` ${duration(a.seconds)}` : ""}`;
    return line;
  }));
}

let drawn = "";
function drawDone(records) {
  const record = records.find((r) => r.refresh_id === shownId) ?? records[0];
  const now = JSON.stringify([record, records.map((r) => r.refresh_id)]);
  if (now === drawn) return;
  drawn = now;
  $("which").replaceChildren(...records.map((r) => {
    const option = new Option(`${new Date(r.started).toLocaleString()} (${r.state})`, r.refresh_id);
    option.selected = r === record;
    return option;
  }));
  const made = Object.values(record.assets).filter((a) => a.state === "made");
  const took = record.finished ? ` in ${duration((new Date(record.finished) - new Date(record.started)) / 1000)}` : "";
  const lines = [record.summary, `${record.state}: ${made.length} asset${made.length === 1 ? "" : "s"} made${took}`, record.message, ...record.failed_checks];
  $("outcome").textContent = lines.filter(Boolean).join("\n");
  $("results").replaceChildren(...record.results.map((result) => drawResult(result)));
}

function drawResult(result) {
  const box = document.createElement("div");
  box.className = "result";
  const title = document.createElement("h3");
  title.textContent = result.name;
  for (const [name, link] of [["MLflow before", result.run_before], ["MLflow after", result.run_after]]) {
    if (!link) continue;
    const a = document.createElement("a");
    Object.assign(a, { href: link, target: "_blank", rel: "noopener", textContent: `${name} ↗` });
    title.append(a);
  }
  box.append(title);
  const changed = result.figures.filter((f) => f.before !== f.after);
  if (changed.length) {
    const table = document.createElement("table");
    table.append(row("th", "metric", "before", "after", "change"), ...changed.map((f) =>
      row("td", f.figure, number(f.before), number(f.after), f.before === null || f.after === null ? "" : signed(f.after - f.before))));
    box.append(table);
  }
  for (const pair of result.pictures) {
    const both = document.createElement("div");
    both.className = "pair";
    for (const when of ["before", "after"]) {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption");
      caption.textContent = when;
      figure.append(caption);
      if (pair[when]) {
        const img = new Image();
        img.loading = "lazy";
        img.alt = `${result.name} ${when}`;
        img.src = `/picture/refresh/${pair[when].split("/").map(encodeURIComponent).join("/")}`;
        figure.append(img);
      } else figure.append("none");
      both.append(figure);
    }
    box.append(both);
  }
  return box;
}

function row(kind, ...cells) {
  const tr = document.createElement("tr");
  tr.append(...cells.map((text) => Object.assign(document.createElement(kind), { textContent: text })));
  return tr;
}

const number = (x) => x === null ? "–" : Number.isInteger(x) ? x.toLocaleString("en") : Number(x.toPrecision(4)).toString();
const signed = (x) => (x > 0 ? "+" : "") + number(x);
const duration = (s) => s < 1 ? "under 1 s" : s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
