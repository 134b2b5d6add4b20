// The studio: sliders, the chosen face, and its views. The server draws pictures from recipes and keeps no state.

import { Gone, get, post, session } from "./server.js";
import { duration, language, t } from "./i18n.js";
import { address } from "./address.js";
import { commandOf, parse, query } from "./link.js";
import { problem, toast } from "./say.js";
import { copy, download, failed, fileOf, name, settled } from "./faces.js";
import { views } from "./views.js";

const $ = (id) => document.getElementById(id);
const RANGES = { detail: [0, 1], temperature: [0, 1.6], guidance: [0, 4], fidelity: [0, 1] };
const OWN = { detail: null, temperature: null, guidance: null }; // sliders that were not moved: each face has its own value
const KEPT = 24;

// The state that the views use: `about`, the root; `set`, the values of moved sliders (null: each face's own); `chosen`, the face as it
// was chosen; `plain`, the face with the sliders applied; `now`, the face as it is shown, which may be retouched; `seed` and `count`, those of
// the list; `model`, the hash of the generator.
export const studio = {
  about: null, set: {}, fidelity: 0, faces: [], seed: 0, count: 0, model: "", chosen: null, plain: null, now: null, history: [], kept: [], view: "many",
  follow, choose, adopt, reopen, setValue, faceButton, thumb, draw, retouch, applied, command,
};

export function startStudio() {
  addEventListener("tab", (event) => { if (event.detail === "studio") open(); });
  addEventListener("language", () => { if (studio.chosen) { build(); follow(); } });
  addEventListener("back", () => { if (studio.chosen) { show(studio.view); follow(); } else if (!$("studio").hidden) open(); });
  $("s-empty").querySelector("button").addEventListener("click", open);
  $("s-seed").addEventListener("change", () => newFaces());
  $("s-count").addEventListener("change", () => newFaces());
  $("s-dice").addEventListener("click", () => { $("s-seed").value = Math.floor(Math.random() * 1e6); newFaces(); });
  $("s-keep").addEventListener("click", keep);
  $("s-download").addEventListener("click", () => download([studio.now.face], fileOf(studio.now.face)));
  $("s-link").addEventListener("click", () => {
    record();
    copy(location.href, t(/&(face|recipe)=/.test(written) ? "link_copied" : "link_without_photograph"));
  });
  $("s-command").addEventListener("click", () => {
    const line = commandOf(studio, studio.now.face, fileOf(studio.now.face));
    copy(line, t(line.includes(" --from ") ? "command_of_png" : "command_copied", { file: fileOf(studio.now.face) }));
  });
  $("s-help").addEventListener("click", () => $("s-keys").showModal());
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=range]), select, textarea") || event.ctrlKey || event.metaKey || event.altKey;
    if ($("studio").hidden || typing || $("s-keys").open) return;
    const acts = { KeyK: "s-keep", KeyD: "s-download", KeyR: "s-dice", KeyL: "s-link", KeyC: "s-command" };
    const act = event.key === "?" ? "s-help" : studio.now && acts[event.code]; // codes of keys, since with Korean input the key k gives ㅏ
    if (act) $(act).click();
  });
  for (const type of ["dragover", "drop"]) {
    $("studio").addEventListener(type, (event) => {
      event.preventDefault();
      const [file] = event.dataTransfer.files;
      if (type === "drop" && file && studio.about?.ready) views.photograph.take(file);
    });
  }
}

async function open() {
  if (studio.about?.ready) { if (linked() && linked() !== written) restore(); else record(); return; }
  try {
    studio.about = await get("/api/studio");
  } catch (error) {
    if (!(error instanceof Gone)) problem(error.message);
    return;
  }
  const { ready, command: wanted } = studio.about;
  $("studio").classList.toggle("empty", !ready);
  $("s-empty").hidden = ready;
  $("s-empty").querySelector("pre").textContent = wanted;
  if (!ready) return;
  if (studio.about.running) awake.add(null);
  studio.kept = JSON.parse(sessionStorage.kept || "[]");
  restore();
}

let written = ""; // the state that this page wrote into its address
// The state in the address, empty if there is none.
const linked = () => address().query;

// Take the state from the address; without one, that of a fresh page.
function restore() {
  const state = parse(linked(), studio.about), { values, detail, temperature, guidance, fidelity, view } = state;
  Object.assign(studio, { set: { values, detail, temperature, guidance }, fidelity, view: Object.hasOwn(views, view) ? view : "many", history: [] });
  $("s-seed").value = state.seed;
  if ([...$("s-count").options].some((o) => o.value === state.count)) $("s-count").value = state.count;
  written = linked();
  build();
  newFaces(state);
}

// Write the state into the address, without a step back for each move.
function record() {
  if ($("studio").hidden || !studio.now) return;
  written = query(studio);
  history.replaceState(null, "", `#studio?${written}`);
}

// Build all elements with texts, again after a change of language; values stay.
function build() {
  const { attributes } = studio.about, names = [...attributes.map((a) => a.name), ...Object.keys(RANGES)];
  $("s-sliders").replaceChildren(...names.map((what, i) => {
    const [low, high] = RANGES[what] ?? [0, 1], row = document.createElement("label");
    row.className = "s-slider";
    row.dataset.what = what;
    row.innerHTML = `<span></span><input type="range" min="${low}" max="${high}" step="0.01"><output></output><button>↺</button><small></small>`;
    const [title, input, , reset, ends] = row.children;
    title.textContent = t(what);
    ends.textContent = t(`${what}_ends`);
    input.setAttribute("aria-label", `${t(what)}: ${t(`${what}_ends`)}`);
    if (i < attributes.length) limit(row, attributes[i].range);
    reset.title = t("own", { what: t(what) });
    reset.setAttribute("aria-label", reset.title);
    const change = (value) => {
      if (what === "fidelity") studio.fidelity = value ?? 0;
      else if (i < attributes.length) studio.set.values[i] = value;
      else studio.set[what] = value;
      follow();
    };
    input.addEventListener("input", () => change(Number(input.value)));
    reset.addEventListener("click", () => change(null));
    return row;
  }));
  document.querySelector("[data-what=fidelity]").hidden = !studio.about.can_retouch;
  document.querySelector("[data-what=detail]").hidden = studio.about.detail === null;
  $("s-tabs").replaceChildren(...Object.keys(views).map((key) => {
    const tab = document.createElement("button");
    Object.assign(tab, { textContent: t(key), role: "tab", id: `s-tab-${key}` });
    tab.setAttribute("aria-controls", "s-view");
    tab.addEventListener("click", () => { show(key); follow(); });
    return tab;
  }));
  const list = (pairs) => pairs.flatMap((pair) => ["dt", "dd"].map((tag, i) => Object.assign(document.createElement(tag), { textContent: pair[i] })));
  const keys = { k: "keep_title", d: "download_title", l: "link_title", c: "command_title", r: "dice", "← → ↑ ↓, Enter": "arrows", "?": "help_title" };
  const words = ["seed", "detail", "temperature", "guidance", "fidelity", "range"];
  $("s-key-list").replaceChildren(...list(Object.entries(keys).map(([key, what]) => [key, t(what).replace(/ \(.\)$/, "")])));
  $("s-word-list").replaceChildren(...list(words.map((word) => [t(word), t(`${word}_help`)])));
  $("s-tabs").onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key], tabs = [...$("s-tabs").children];
    const next = by && tabs[(tabs.indexOf(document.activeElement) + by + tabs.length) % tabs.length];
    if (next) { next.focus(); next.click(); }
  };
  $("s-controls").ariaLabel = t("sliders");
  $("s-note").hidden = !studio.about.detail_waits;
  drawSliders();
  if (!studio.now) $("s-face").querySelector("figcaption").textContent = t("drawing");
  show(studio.view);
  drawShelf();
  drawFacts();
}

// What the generator was trained on, for how long and at what size, as far as the root knows it.
function drawFacts() {
  const { pictures, folders, epochs, seconds, width, height } = studio.about.training;
  const number = (n) => n.toLocaleString(language), list = new Intl.ListFormat(language);
  const time = seconds && duration(seconds);
  $("s-facts").textContent = [
    pictures && t("trained_on", { pictures: number(pictures), folders: list.format(folders) }), t("trained_size", { width, height }),
    epochs && t(time ? "trained_epochs_in" : "trained_epochs", { epochs, time }), t("trained_limit"),
  ].filter(Boolean).join(" ");
}

// Hatch the part of a slider's track that too few pictures support, with a note: values there are drawn as the nearest supported value.
function limit(row, [low, high]) {
  if (low <= 0.05 && high >= 0.95) return;
  const why = t("range_why", { low: low.toFixed(2), high: high.toFixed(2) });
  row.classList.add("limited");
  row.style.setProperty("--low", low);
  row.style.setProperty("--high", high);
  row.title = why;
  row.lastChild.textContent += ` · ${why}`;
}

function show(view) {
  studio.view = view;
  for (const tab of $("s-tabs").children) {
    const on = tab.id === `s-tab-${view}`;
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on ? 0 : -1;
    if (on) $("s-tabs").scrollLeft = tab.offsetLeft - $("s-tabs").offsetLeft; // in a narrow window the tabs scroll
  }
  $("s-view").className = `s-${view}`;
  $("s-view").replaceChildren();
  if (studio.chosen) views[view].open($("s-view"), studio);
}

// The faces of the seed and number in the page; chosen is the first one, or that of the `state` of a link.
async function newFaces(state = {}) {
  const { temperature, guidance, detail, attributes } = studio.about, seed = Math.max(0, Math.floor(Number($("s-seed").value)) || 0);
  $("s-seed").value = seed;
  Object.assign(studio, { seed, count: Number($("s-count").value) });
  const asked = Array.from({ length: studio.count }, (_, i) =>
    ({ latents: { seed: seed + i }, values: attributes.map(() => null), temperature, guidance,
      ...(detail === null ? {} : { prior: "aggregate", detail }) }));
  // Draw the faces once without the sliders, to get their own values from the server: later requests then have all five values.
  const drawn = await draw("new", asked).catch(failed);
  if (!drawn) return;
  studio.faces = drawn.map((d) => d.face);
  if (state.model && !studio.model.startsWith(state.model)) toast(t("other_model", { theirs: state.model, ours: studio.model.slice(0, 12) }));
  const other = state.recipe && await draw("linked", [state.recipe]).catch(failed);
  choose(other ? other[0].face : studio.faces.find((f) => f.latents.seed === state.face) ?? studio.faces[0]);
}

// Make `face` the chosen one; it is drawn with its own values, except those of moved sliders.
function choose(face, keepHistory = false) {
  if (!keepHistory) studio.history = [];
  studio.chosen = face;
  if (views[studio.view].ofChosen || !$("s-view").children.length) show(studio.view); // other views stay, and keep the focus
  follow();
}

// Choose `face` and reset the sliders to its own values.
function adopt(face) {
  Object.assign(studio.set, { values: face.values.map(() => null), ...OWN });
  choose(face);
}

// Show the faces of a downloaded picture of the studio, unchanged.
function reopen(faces) {
  studio.faces = faces;
  show("many");
  adopt(faces[0]);
}

function setValue(i, value) {
  studio.set.values[i] = value;
  follow();
}

// Draw with the present sliders: the chosen face first, then the view.
async function follow() {
  drawSliders();
  settled("address", record);
  const view = views[studio.view], drawn = draw("face", [applied(studio.chosen)]).catch(failed);
  if (view.follow) view.follow($("s-view"), studio).catch(failed);
  const [plain] = (await drawn) ?? [];
  if (!plain) return;
  studio.plain = plain;
  present(plain);
  if (studio.fidelity) settled("face", async () => {
    const [better] = (await retouch("better", [plain.face]).catch((error) => [{ ...plain, reason: error.message }])) ?? [];
    if (better && studio.plain === plain && studio.fidelity) present(better);
  });
}

// Show the chosen face as it was drawn last.
function present(now) {
  studio.now = now;
  const img = $("s-face").querySelector("img"), view = views[studio.view];
  img.src = now.src;
  img.alt = t("face");
  $("s-face").querySelector("figcaption").textContent = name(now.face);
  drawSliders();
  if (view.after) view.after($("s-view"), studio).catch(failed);
}

function drawSliders() {
  const { set, now, about } = studio, shown = now?.face;
  [...$("s-sliders").children].forEach((row, i) => {
    const what = row.dataset.what, mine = i < about.attributes.length ? set.values[i] : set[what];
    const own = what !== "fidelity" && mine === null, [, input, output, reset] = row.children;
    const value = what === "fidelity" ? studio.fidelity : mine ?? (i < about.attributes.length ? shown?.values[i] : shown?.[what]);
    if (document.activeElement !== input || own) input.value = value ?? 0.5;
    output.textContent = value === undefined ? "…" : Number(value).toFixed(2); // a face's own value is known once it is drawn
    row.classList.toggle("own", own || (what === "fidelity" && !value));
    reset.disabled = what === "fidelity" ? value === 0 : own;
  });
}

// `face` with the values of moved sliders; retouching starts again from the latents that it was drawn with.
function applied(face, { set, fidelity } = studio) {
  return {
    ...face,
    ...(fidelity && face.drawn ? { latents: face.drawn, drawn: undefined, fidelity: 0 } : {}),
    values: face.values.map((v, i) => set.values[i] ?? v),
    detail: set.detail ?? face.detail,
    temperature: set.temperature ?? face.temperature,
    guidance: set.guidance ?? face.guidance,
  };
}

const sent = {}, shown = {}; // by pane: the numbers of the last request, and of the last one that was answered
// Pictures of `faces`: [{ face, src }]; null if a newer request of the same pane replaced this one.
async function draw(pane, faces, model = null, path = "faces", more = {}) {
  const turn = path === "retouch" ? 8 : studio.about.turn, number = sent[pane] = (sent[pane] ?? 0) + 1;
  const asked = [];
  for (let i = 0; i < faces.length; i += turn)
    asked.push(ask(path, { tab: session, pane: `${pane}.${i / turn}`, model, faces: faces.slice(i, i + turn), ...more }));
  const answers = await Promise.all(asked);
  if (answers.includes(null) || number < (shown[pane] ?? 0)) return null;
  shown[pane] = number;
  if (!model) Object.assign(studio, { groups: answers[0].groups, model: answers[0].model });
  return answers.flatMap((a) => a.faces.map((face, i) => ({ face, src: a.pictures[i], reason: a.reasons?.[i] ?? "" })));
}

function retouch(pane, faces) {
  return draw(pane, faces, null, "retouch", { fidelity: studio.fidelity });
}

let underway = 0;
const awake = new Set(); // the models that have answered; null is the one of the root
// The answer; null if a newer request of the same pane replaced this one.
async function ask(path, body) {
  const slow = setTimeout(() => { if (!awake.has(body.model ?? null)) $("s-status").textContent = t("waking"); }, 700);
  underway += 1;
  try {
    const answer = await post(`/api/studio/${path}`, body);
    awake.add(body.model ?? null);
    return answer;
  } finally {
    clearTimeout(slow);
    underway -= 1;
    if (!underway) $("s-status").textContent = "";
  }
}

function keep() {
  studio.kept = [studio.now, ...studio.kept].slice(0, KEPT);
  sessionStorage.kept = JSON.stringify(studio.kept);
  toast(t("kept"));
  drawShelf();
}

function drawShelf() {
  const shelf = $("s-shelf");
  shelf.replaceChildren(...studio.kept.map((kept, i) => {
    const box = document.createElement("div"), away = document.createElement("button");
    box.className = "s-kept";
    Object.assign(away, { textContent: "×", title: t("drop_face"), ariaLabel: t("drop_face") });
    away.addEventListener("click", () => {
      studio.kept.splice(i, 1);
      sessionStorage.kept = JSON.stringify(studio.kept);
      drawShelf();
    });
    box.append(faceButton(kept, () => adopt(kept.face)), away);
    return box;
  }));
  if (!studio.kept.length) shelf.textContent = t("shelf_empty");
}

// A picture of a face as a button.
function faceButton(shown, press) {
  const button = document.createElement("button");
  button.className = "s-pick";
  button.append(thumb(shown));
  button.addEventListener("click", press);
  return button;
}

function thumb(shown) {
  const img = new Image();
  Object.assign(img, { src: shown.src, alt: t("face_of", { name: name(shown.face) }) });
  return img;
}

// Show the command to run, with the reason.
function command(view, why) {
  const p = document.createElement("p"), pre = document.createElement("pre");
  p.textContent = t(why);
  pre.textContent = studio.about.command;
  view.append(p, pre);
}
