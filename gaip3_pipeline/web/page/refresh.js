// The refresh tab: the plan and its duration, the progress, and what changed.

import { duration, language, t } from "./i18n.js";
import { said } from "./said.js";
import { get, post } from "./server.js";
import { mayNotify, notify, stateInTitle, toast } from "./say.js";

const $ = (id) => document.getElementById(id);
const POLL = 1000; // ms

let root, planned = null, shownId = null, running = false, stopping = false, begun = false;
let words = {}; // what people call an asset or a figure: English, Korean
const inWords = (key) => words[key]?.[language === "ko" ? 1 : 0] ?? key;

export function startRefresh(name) {
  root = name;
  addEventListener("tab", (event) => { if (event.detail === "refresh") { plan(); look(); } });
  addEventListener("language", () => { drawn = ""; if (planned) drawPlan(); look(); });
  addEventListener("focus", () => { if (!running) stateInTitle(""); });
  // a refresh that runs is in the title of the browser's tab, so it is followed from everywhere
  setInterval(() => { if (running || (!document.hidden && !$("refresh").hidden)) look(); }, POLL);
  post("/api/plan/prepare", {}).catch(() => {}); // the first plan then takes a second
  look();
  $("start").onclick = start;
  $("stop").onclick = () => {
    stopping = true;
    post("/api/refreshes/stop", {}).catch((e) => { stopping = false; toast(e.message); });
  };
  $("which").onchange = () => { shownId = $("which").value; look(); };
}

async function plan() {
  if (running) return;
  $("start").disabled = true;
  $("summary").textContent = t("computing");
  try {
    planned = await get("/api/plan");
    drawPlan();
    $("start").disabled = running || !planned.plan.length;
  } catch (error) {
    planned = null;
    $("summary").textContent = error.message;
    $("start").disabled = false; // a refresh may work nevertheless, or report the same error
  }
}

function drawPlan() {
  const steps = planned.plan;
  $("summary").textContent = said(planned.summary);
  $("plan").hidden = !steps.length;
  $("warmly").hidden = !steps.some((p) => p.name === "nvae_weights" && p.seconds !== null);
  const timed = steps.some((p) => p.seconds !== null); // before the first refresh no duration is known
  const heads = [t("asset"), t("reason"), ...(timed ? [t("last_duration")] : [])];
  const lines = steps.map((p) => row("td", p.name, p.reasons.map(said).join("; "), ...(timed ? [p.seconds === null ? t("unknown") : duration(p.seconds)] : [])));
  $("plan").querySelector("table").replaceChildren(row("th", ...heads), ...lines);
}

async function start() {
  $("start").disabled = true;
  mayNotify();
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
  words = found.words;
  const now = records.find((r) => r.state === "running");
  const was = running;
  running = Boolean(now) || found.starting;
  $("start").disabled = $("start").disabled || running;
  $("stop").hidden = !running;
  $("running").hidden = !running;
  if (running) drawRunning(now);
  if (running && !planned) $("summary").textContent = t("planned_later");
  if (was && !running) ended(records[0], found.problem);
  const done = records.filter((r) => r.state !== "running");
  $("done").hidden = !done.length;
  if (done.length && !$("refresh").hidden) drawDone(done);
}

function ended(record, problem) {
  stopping = begun = false;
  shownId = null;
  const state = t(`state_${problem ? "failed" : record?.state ?? "stopped"}`);
  stateInTitle(document.hasFocus() ? "" : state);
  notify(t("ended", { root, state }));
  dispatchEvent(new Event("refreshed"));
  plan();
  if (problem) toast(said(problem));
}

function drawRunning(record) {
  if (!record) {
    stateInTitle("…");
    $("now").textContent = t(stopping ? "stopping" : begun ? "ending" : "starting");
    $("assets").replaceChildren();
    $("bar").removeAttribute("value");
    return;
  }
  begun = true;
  const entries = Object.entries(record.assets);
  const finished = entries.filter(([, a]) => ["made", "fresh", "failed"].includes(a.state)).length;
  const step = record.progress;
  const seconds = Object.fromEntries(record.plan.map((p) => [p.name, p.seconds ?? 1]));
  const total = entries.reduce((sum, [name]) => sum + (seconds[name] ?? 1), 0);
  const past = entries.reduce((sum, [name, a]) => {
    if (["made", "fresh", "failed"].includes(a.state)) return sum + (seconds[name] ?? 1);
    // a step may have several parts, each with a progress of its own
    return a.state === "running" && step?.total ? sum + (0.9 * (seconds[name] ?? 1) * step.done) / step.total : sum;
  }, 0);
  $("bar").value = total ? past / total : 0;
  stateInTitle(`${Math.floor(100 * $("bar").value)} %`);
  const timed = record.plan.every((p) => p.seconds !== null); // of each asset the last or an estimated duration
  const now = [t("finished_of", { n: finished, all: entries.length }) + (timed && past < total ? `, ${t("left_in_all", { time: duration(Math.max(1, total - past, step?.left_s ?? 0)) })}` : "")];
  if (stopping) now.push(t("stopping"));
  if (step) {
    const [label, place] = step.label.split(" on "); // a step of a cluster names its node
    now.push(t(place ? "step_on" : "step", { ...step, label, place }) + (step.left_s ? `, ${t("left", { time: duration(step.left_s) })}` : ""));
  }
  $("now").textContent = [said(record.summary), ...now].join("\n");
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
    const option = new Option(`${new Date(r.started).toLocaleString(language)} (${t(`state_${r.state}`)})`, r.refresh_id);
    option.selected = r === record;
    return option;
  }));
  const n = Object.values(record.assets).filter((a) => a.state === "made").length;
  const time = record.finished && duration((new Date(record.finished) - new Date(record.started)) / 1000);
  const made = t(`made${n === 1 ? "_1" : ""}${time ? "_in" : ""}`, { state: t(`state_${record.state}`), n, time });
  $("outcome").textContent = [said(record.summary), made, said(record.message)].filter(Boolean).join("\n");
  $("failed").replaceChildren(...record.failed_checks.map(failedCheck));
  $("results").replaceChildren(...record.results.map((result) => drawResult(result)));
}

// A failed check: its name, and its figures and meaning on a click.
function failedCheck(line) {
  const [name, ...why] = line.split(" failed: "), [asset] = name.split(": ");
  const box = document.createElement("details"), summary = document.createElement("summary"), found = document.createElement("p");
  summary.textContent = words[name] ? `✗ ${inWords(name)} · ${inWords(asset)}` : said(`${name}${why.length ? " failed" : ""}`);
  summary.title = name;
  found.textContent = [words[`${name}?`] && inWords(`${name}?`), why.join(" failed: ")].filter(Boolean).join("\n");
  box.append(summary, found);
  return box;
}

// An asset that was made for the first time has no figures and pictures before, and no columns for them.
function drawResult(result) {
  const box = document.createElement("div");
  box.className = "result";
  const title = document.createElement("h3");
  title.textContent = inWords(result.name);
  if (title.textContent !== result.name) title.append(" ", Object.assign(document.createElement("code"), { textContent: result.name }));
  const runs = result.run_before ? [[t("mlflow_before"), result.run_before], [t("mlflow_after"), result.run_after]] : [[t("mlflow"), result.run_after]];
  for (const [name, link] of runs) {
    if (!link) continue;
    const a = document.createElement("a");
    Object.assign(a, { href: link, target: "_blank", rel: "noopener", textContent: `${name} ↗` });
    title.append(a);
  }
  box.append(title);
  const changed = result.figures.filter((f) => number(f.before) !== number(f.after)), first = changed.every((f) => f.before === null);
  const tableOf = (figures) => {
    const table = document.createElement("table");
    if (first) table.append(row("th", t("metric"), t("value")), ...figures.map((f) => row("td", inWords(f.figure), number(f.after))));
    else table.append(row("th", t("metric"), t("was"), t("is"), t("change")), ...figures.map((f) =>
      row("td", inWords(f.figure), number(f.before), number(f.after), f.before === null || f.after === null ? "" : signed(f.after - f.before))));
    return table;
  };
  const named = changed.filter(({ figure }) => words[figure] && words[figure][0] !== words[figure][1]), rest = changed.filter((f) => !named.includes(f));
  if (named.length) box.append(tableOf(named));
  if (rest.length) {
    const more = document.createElement("details"), summary = document.createElement("summary");
    summary.textContent = t("more_figures", { n: rest.length });
    more.append(summary, tableOf(rest));
    box.append(more);
  }
  for (const pair of result.pictures) {
    const both = document.createElement("div");
    both.className = pair.before ? "pair" : "pair first";
    for (const when of pair.before ? ["before", "after"] : ["after"]) {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption"), words = t(when === "before" ? "was" : "is");
      caption.textContent = pair.before ? words : "";
      figure.append(caption);
      if (pair[when]) {
        const img = new Image();
        img.loading = "lazy";
        img.alt = `${result.name} ${words}`;
        img.src = `/picture/refresh/${pair[when].split("/").map(encodeURIComponent).join("/")}`;
        figure.append(img);
      } else figure.append(t("picture_none"));
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
