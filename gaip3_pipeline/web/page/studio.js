// The studio: sliders, the chosen face, and its views. The server draws pictures from recipes and keeps no state.

import { get, post, session } from "./server.js";
import { t, translate } from "./i18n.js";
import { problem, toast } from "./say.js";
import { download, failed, name, settled } from "./faces.js";
import { views } from "./views.js";

const $ = (id) => document.getElementById(id);
const RANGES = { detail: [0, 1], temperature: [0, 1.6], guidance: [0, 4], fidelity: [0, 1] };
const OWN = { detail: null, temperature: null, guidance: null }; // sliders that were not moved: each face has its own value
const KEPT = 24;

// The state that the views use: `about`, the root; `set`, the values of moved sliders (null: each face's own); `chosen`, the face as it
// was chosen; `plain`, the face with the sliders applied; `now`, the face as it is shown, which may be retouched.
export const studio = {
  about: null, set: {}, fidelity: 0, faces: [], chosen: null, plain: null, now: null, history: [], kept: [], view: "many",
  follow, choose, adopt, reopen, setValue, faceButton, thumb, draw, retouch, applied, command,
};

export function startStudio() {
  addEventListener("tab", (event) => { if (event.detail === "studio") open(); });
  addEventListener("language", () => { if (studio.chosen) { build(); follow(); } });
  $("s-empty").querySelector("button").addEventListener("click", open);
  $("s-seed").addEventListener("change", newFaces);
  $("s-count").addEventListener("change", newFaces);
  $("s-dice").addEventListener("click", () => { $("s-seed").value = Math.floor(Math.random() * 1e6); newFaces(); });
  $("s-keep").addEventListener("click", keep);
  $("s-download").addEventListener("click", () => download([studio.now.face], `face-${name(studio.now.face)}.png`));
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=range]), select, textarea") || event.ctrlKey || event.metaKey || event.altKey;
    if ($("studio").hidden || typing || !studio.now) return;
    const act = { KeyK: "s-keep", KeyD: "s-download", KeyR: "s-dice" }[event.code]; // codes of keys, since with Korean input the key k gives ㅏ
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
  if (studio.about?.ready) return;
  try {
    studio.about = await get("/api/studio");
  } catch (error) {
    problem(error.message);
    return;
  }
  const { ready, command: wanted, seed } = studio.about;
  $("studio").classList.toggle("empty", !ready);
  $("s-empty").hidden = ready;
  $("s-empty").querySelector("pre").textContent = wanted;
  if (!ready) return;
  studio.kept = JSON.parse(sessionStorage.kept || "[]");
  studio.set = { values: studio.about.attributes.map(() => null), ...OWN };
  $("s-seed").value = seed;
  build();
  newFaces();
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
  $("s-tabs").onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key], tabs = [...$("s-tabs").children];
    const next = by && tabs[(tabs.indexOf(document.activeElement) + by + tabs.length) % tabs.length];
    if (next) { next.focus(); next.click(); }
  };
  show(studio.view);
  drawShelf();
}

// Hatch the part of a slider's track that too few pictures support, with a note: values there are drawn as the nearest supported value.
function limit(row, [low, high]) {
  if (low <= 0.01 && high >= 0.99) return;
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
  }
  $("s-view").className = `s-${view}`;
  $("s-view").replaceChildren();
  if (studio.chosen) views[view].open($("s-view"), studio);
}

async function newFaces() {
  const { temperature, guidance, detail, attributes } = studio.about, seed = Math.max(0, Math.floor(Number($("s-seed").value)) || 0);
  $("s-seed").value = seed;
  const asked = Array.from({ length: Number($("s-count").value) }, (_, i) =>
    ({ latents: { seed: seed + i }, values: attributes.map(() => null), temperature, guidance,
      ...(detail === null ? {} : { prior: "aggregate", detail }) }));
  // Draw the faces once without the sliders, to get their own values from the server: later requests then have all five values.
  const drawn = await draw("new", asked).catch(failed);
  if (!drawn) return;
  studio.faces = drawn.map((d) => d.face);
  choose(studio.faces[0]);
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
    const value = what === "fidelity" ? studio.fidelity : mine ?? (i < about.attributes.length ? shown?.values[i] : shown?.[what]) ?? 0.5;
    if (document.activeElement !== input || own) input.value = value;
    output.textContent = Number(value).toFixed(2);
    row.classList.toggle("own", own);
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
  studio.groups = answers[0].groups;
  return answers.flatMap((a) => a.faces.map((face, i) => ({ face, src: a.pictures[i], reason: a.reasons?.[i] ?? "" })));
}

function retouch(pane, faces) {
  return draw(pane, faces, null, "retouch", { fidelity: studio.fidelity });
}

let underway = 0;
// The answer; null if a newer request of the same pane replaced this one.
async function ask(path, body) {
  const slow = setTimeout(() => { if (!studio.about.running) $("s-status").textContent = t("waking"); }, 700);
  underway += 1;
  try {
    const answer = await post(`/api/studio/${path}`, body);
    studio.about.running = true;
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
