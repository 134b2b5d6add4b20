// The label tab: one attribute at a time over a large picture, or a grid to sweep many pictures at once.

import { allSaved, get, labels, post, save, session, unsaved } from "./server.js";
import { problem, toast } from "./say.js";

const $ = (id) => document.getElementById(id);
const AHEAD = 10, BEHIND = 3; // pictures fetched and decoded in advance
const POLL = 2000; // ms between requests for labels of others
const FRACTIONS = { 0: "0", 0.25: "¼", 0.5: "½", 0.75: "¾", 1: "1" };

let about, who;
let columns; // as the server sends them: a column for each property, an entry for each image
let rows = new Map(); // "gender/stem" -> index into the columns
let cursor = 0; // the number of the last change that is shown
let attribute;
let view = []; // indices of the images that pass the filters, in order; fixed until a filter changes
let at = 0;
let grid = false, brush = 1, showPrediction = false;
const pictures = new Map(); // index -> <img>, large

export async function startLabel(settings, name) {
  about = settings;
  who = name;
  for (const { name: a } of about.attributes) {
    const button = document.createElement("button");
    button.textContent = a.replace("_", " ");
    button.dataset.attribute = a;
    button.setAttribute("role", "tab");
    button.onclick = () => inTurn(() => choose(a));
    $("attributes").append(button);
  }
  for (const id of ["show", "sex", "order"]) $(id).addEventListener("change", () => { $(id).blur(); inTurn(filter); });
  $("mode").onclick = toggleGrid;
  $("undo").onclick = () => inTurn(undo);
  $("help").onclick = () => $("keys").showModal();
  $("confirm").onclick = () => inTurn(confirmLabel);
  $("remove").onclick = () => inTurn(() => setHere(null));
  $("previous").onclick = () => inTurn(() => move(-1));
  $("skip").onclick = () => inTurn(() => move(1));
  addEventListener("keydown", key);
  addEventListener("resize", () => { if (grid) drawGrid(); });
  addEventListener("tab", () => { if (grid && !$("label").hidden) drawGrid(); });
  startSweeping();
  labels.onState = (count, failing) => {
    $("saved").textContent = failing ? `not saved: ${count}, trying again` : count ? `saving ${count} …` : "saved";
    $("saved").className = failing ? "failing" : count ? "waiting" : "";
  };
  labels.onChanges = noteSaved;
  labels.onRefused = (_sent, message) => { toast(message); inTurn(() => choose(attribute, here())); };
  const wanted = about.attributes.some((a) => a.name === localStorage.attribute) ? localStorage.attribute : about.attributes[0].name;
  await inTurn(() => choose(wanted));
  setInterval(() => { if (!document.hidden) look(); }, POLL);
}

// Actions run in the order of the key presses, also if one waits for the server: a key pressed while the next attribute is loading
// labels an image of that attribute.
let turn = Promise.resolve();

function inTurn(act) {
  turn = turn.then(() => act()).catch((error) => toast(error.message));
  return turn;
}

async function choose(name, image = null) {
  await allSaved();
  await load(name);
  localStorage.attribute = name;
  filter(image);
}

async function load(name) {
  const found = await get(`/api/labels/${name}`);
  attribute = name;
  ({ columns, cursor } = found);
  rows = new Map(columns.stem.map((stem, i) => [`${columns.gender[i]}/${stem}`, i]));
  pictures.clear();
  problem(found.problem);
  for (const button of $("attributes").children) {
    button.classList.toggle("on", button.dataset.attribute === name);
    button.setAttribute("aria-selected", button.dataset.attribute === name);
  }
  for (const option of $("order").options) option.disabled = option.value !== "name" && !found.reviewed;
  if (!found.reviewed) $("order").value = "name";
  $("meaning").textContent = `${name.replace("_", " ")}: ${found.meaning}`;
  drawLevels();
  count();
}

// Filters and order. The view does not change while the user labels, so that no image moves.

function filter(image = null) {
  const show = $("show").value, sex = $("sex").value, order = $("order").value;
  const value = columns.value;
  const shown = {
    all: () => true,
    unlabelled: (i) => value[i] === null,
    labelled: (i) => value[i] !== null,
    between: (i) => value[i] !== null && !(value[i] in FRACTIONS),
  }[show] ?? ((i) => value[i] === Number(show));
  view = [...value.keys()].filter((i) => (!sex || columns.gender[i] === sex) && shown(i));
  if (order !== "name") {
    const by = columns[order], sign = order === "next" ? 1 : -1;
    view = view.filter((i) => by[i] !== null).sort((i, j) => sign * (by[i] - by[j]));
  }
  const found = image === null ? -1 : view.findIndex((i) => keyOf(i) === image);
  at = Math.max(found, 0);
  if (found < 0 && order === "name" && show === "all") at = Math.max(view.findIndex((i) => value[i] === null), 0); // go on where it stopped
  draw();
}

const here = () => (view.length ? keyOf(view[at]) : null);
const keyOf = (i) => `${columns.gender[i]}/${columns.stem[i]}`;

// Setting values

function set(i, value) {
  save({ attribute, gender: columns.gender[i], stem: columns.stem[i], value, seen: columns.value[i] }, who());
  columns.value[i] = value;
  columns.suspicion[i] = null;
}

function setHere(value) {
  if (!view.length) return;
  if (value === null && columns.value[view[at]] === null) { move(1); return; }
  set(view[at], value);
  count();
  move(1);
}

function confirmLabel() {
  if (view.length && columns.value[view[at]] !== null) setHere(columns.value[view[at]]);
}

function noteSaved(changes, sent) {
  // Somebody else may have labelled the same image meanwhile: the last value counts, and both are in the history.
  const before = new Map(sent.map((label) => [`${label.attribute}/${label.gender}/${label.stem}`, label.seen]));
  for (const change of changes) {
    const seen = before.get(`${change.attribute}/${change.gender}/${change.stem}`);
    if (change.before !== seen && sent.length === 1) toast(`${change.stem} had been set to ${short(change.before)} by somebody else; it is now ${short(change.after)}`);
  }
  drawHistory();
}

async function undo() {
  await allSaved();
  try {
    const { change } = await post("/api/undo", { who: who(), session });
    if (!change) { toast("nothing to undo in this tab"); return; }
    if (change.attribute !== attribute) await choose(change.attribute, `${change.gender}/${change.stem}`);
    take(change);
    const i = rows.get(`${change.gender}/${change.stem}`);
    let place = view.indexOf(i);
    if (place < 0) { view.splice(at, 0, i); place = at; }
    at = place;
    count();
    draw();
  } catch (error) { toast(error.message); }
}

async function restore(change) {
  await allSaved();
  try {
    take((await post(`/api/restore/${change.id}`, { who: who(), session })).change);
    count();
    draw();
  } catch (error) { toast(error.message); }
}

function take(change) {
  const i = rows.get(`${change.gender}/${change.stem}`);
  if (i !== undefined && change.attribute === attribute) columns.value[i] = change.after;
}

// Changes by others since the last request: other tabs, spreadsheets, imports

async function look() {
  let changes;
  try { ({ changes } = await get(`/api/changes?since=${cursor}`)); } catch { return; }
  if (!changes.length) return;
  cursor = changes.at(-1).id;
  changes.forEach(take); // in order, with those of this tab: the last value counts
  unsaved().forEach((label) => take({ ...label, after: label.value }));
  const others = changes.filter((c) => c.session !== session || c.who === "outside");
  if (!others.length) return;
  const names = [...new Set(others.map((c) => c.who))].join(", ");
  toast(`${names}: ${others.length} label${others.length > 1 ? "s" : ""} changed (${[...new Set(others.map((c) => c.attribute))].join(", ")})`);
  count();
  draw();
}

// Drawing

function draw() {
  $("single").hidden = grid;
  $("grid").hidden = !grid;
  $("mode").textContent = grid ? "one picture" : "grid";
  for (const id of ["confirm", "skip", "previous"]) $(id).hidden = grid;
  if (grid) drawGrid(); else drawPicture();
  markLevel();
  drawPrediction();
  drawHistory();
}

function move(step) {
  if (!view.length) return;
  const next = Math.min(Math.max(at + step, 0), view.length - 1);
  if (next === at && step > 0) toast("this is the last image in the list");
  at = next;
  draw();
}

function large(i) {
  let img = pictures.get(i);
  if (!img) {
    img = new Image();
    img.alt = columns.stem[i];
    img.dataset.key = keyOf(i);
    img.src = `/picture/large/${columns.gender[i]}/${encodeURIComponent(columns.stem[i])}?v=${columns.version[i]}`;
    img.decode().catch(() => { img.dataset.broken = "yes"; if (view[at] === i && !grid) drawPicture(); });
    pictures.set(i, img);
    if (pictures.size > 4 * (AHEAD + BEHIND)) pictures.delete(pictures.keys().next().value);
  }
  return img;
}

function drawPicture() {
  if (!view.length) {
    $("picture").replaceChildren(paragraph(columns.stem.length ? "No image matches these filters." : "There are no photographs in original/ThisPersonDoesNotExist/Female and Male."));
    $("caption").textContent = "";
    return;
  }
  const i = view[at], img = large(i);
  if (img.dataset.broken) get(img.getAttribute("src")).catch((e) => $("picture").replaceChildren(paragraph(`${columns.stem[i]}: ${e.message}`)));
  else if ($("picture").firstChild !== img) $("picture").replaceChildren(img);
  $("caption").textContent = `${columns.gender[i]} ${columns.stem[i]} · ${at + 1} of ${view.length.toLocaleString("en")}`;
  for (let k = 1; k <= AHEAD; k++) if (at + k < view.length) large(view[at + k]);
  for (let k = 1; k <= BEHIND; k++) if (at - k >= 0) large(view[at - k]);
}

function paragraph(text) {
  const p = document.createElement("p");
  p.textContent = text;
  return p;
}

function drawLevels() {
  $("levels").replaceChildren(...about.levels.map((level, k) => {
    const button = document.createElement("button");
    button.dataset.level = level;
    button.title = `key ${k + 1}`;
    const img = new Image();
    img.alt = `${attribute} ${FRACTIONS[level]}`;
    img.src = `/picture/example/${attribute}/${k}`;
    const name = document.createElement("b");
    name.textContent = FRACTIONS[level];
    const hint = document.createElement("kbd");
    hint.textContent = k + 1;
    button.append(img, name, hint);
    button.onclick = () => inTurn(() => { brush = level; if (grid) markLevel(); else setHere(level); });
    return button;
  }));
}

function markLevel() {
  const value = grid ? brush : view.length ? columns.value[view[at]] : null;
  for (const button of $("levels").children) button.classList.toggle("on", value !== null && Number(button.dataset.level) === value);
}

function drawPrediction() {
  const i = view[at];
  const said = view.length ? columns.predicted[i] : null;
  if (said === null || said === undefined) { $("prediction").textContent = ""; return; }
  const value = columns.value[i];
  const label = value === null ? "not labelled" : `label ${short(value)}`;
  // The prediction would bias the user, so it is shown only on request, or if the order is by suspicion.
  const shown = showPrediction || $("order").value === "suspicion";
  $("prediction").textContent = shown ? `${label}; prediction of a model not trained on this picture: ${said.toFixed(2)} ± ${columns.uncertainty[i].toFixed(2)}` : `${label} (p: show the prediction)`;
}

let historyTimer;
function drawHistory() {
  clearTimeout(historyTimer);
  $("history").replaceChildren();
  if (!view.length || grid) return;
  historyTimer = setTimeout(async () => {
    const i = view[at];
    const query = new URLSearchParams({ attribute, gender: columns.gender[i], stem: columns.stem[i] });
    let changes;
    try { ({ changes } = await get(`/api/history?${query}`)); } catch { return; }
    if (view[at] !== i || grid) return;
    $("history").replaceChildren(...changes.slice(-6).reverse().map((change) => {
      const line = document.createElement("li");
      const when = new Date(change.time).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
      const what = change.undoes ? "undone to " : change.before === change.after ? "confirmed " : `${short(change.before)} → `;
      line.append(`${when} ${change.who}: ${what}${short(change.after)}`);
      if (change.before !== change.after) {
        const back = document.createElement("button");
        back.textContent = `back to ${short(change.before)}`;
        back.onclick = () => inTurn(() => restore(change));
        line.append(back);
      }
      return line;
    }));
  }, 250);
}

const short = (value) => value === null ? "none" : FRACTIONS[value] ?? value.toFixed(2).replace(/^0/, "");

function count() {
  const bars = new Map(about.levels.map((level) => [level, 0]));
  let between = 0, labelled = 0;
  for (const value of columns.value) {
    if (value === null) continue;
    labelled++;
    if (bars.has(value)) bars.set(value, bars.get(value) + 1); else between++;
  }
  const all = columns.value.length;
  $("count").textContent = `${labelled.toLocaleString("en")} of ${all.toLocaleString("en")} labelled (${all ? Math.round((100 * labelled) / all) : 0} %)`;
  const entries = [...bars].map(([level, n]) => [FRACTIONS[level], n]);
  if (between) entries.push(["other", between]);
  const most = Math.max(1, ...entries.map(([, n]) => n));
  $("histogram").replaceChildren(...entries.map(([name, n]) => {
    const box = document.createElement("div"), bar = document.createElement("i");
    box.title = `${name}: ${n}`;
    bar.style.height = `${Math.round((20 * n) / most)}px`;
    box.append(bar, `${name}: ${n}`);
    return box;
  }));
}

// The grid: one screen of thumbnails at a time

let perPage = 1, across = 1;
let sweeping = false;

function toggleGrid() {
  grid = !grid;
  draw();
}

function drawGrid() {
  const box = $("grid");
  box.hidden = false;
  const { width } = box.getBoundingClientRect();
  const { bottom } = $("stage").getBoundingClientRect();
  const below = innerWidth <= 720 ? document.querySelector("aside").offsetHeight + 16 : 0;
  const height = bottom - below - box.getBoundingClientRect().top;
  // The least number of rows that makes the tiles small enough; the tiles then fill the rows.
  const most = width < 500 ? 84 : 132;
  let down = 1;
  const wide = () => Math.floor((height / down - 10) * (104 / 128));
  while (wide() > most) down++;
  across = Math.max(1, Math.floor((width + 4) / (wide() + 10)));
  perPage = across * down;
  box.style.gridTemplateColumns = `repeat(${across}, ${wide() + 6}px)`;
  const first = Math.floor(at / perPage) * perPage;
  const pageOf = view.slice(first, first + perPage);
  box.replaceChildren(...pageOf.map((i, k) => {
    const tile = document.createElement("div"), img = new Image(), value = document.createElement("b");
    tile.className = "tile";
    tile.dataset.row = i;
    tile.dataset.place = first + k;
    tile.title = columns.stem[i];
    img.alt = columns.stem[i];
    img.draggable = false;
    img.src = thumbnail(i);
    tile.append(img, value);
    if ($("order").value === "suspicion" || showPrediction) {
      const said = document.createElement("i");
      said.textContent = columns.predicted[i]?.toFixed(2).replace(/^0/, "") ?? "";
      tile.append(said);
    }
    drawTile(tile);
    return tile;
  }));
  if (!view.length) box.replaceChildren(paragraph("No image matches these filters."));
  for (const i of view.slice(first + perPage, first + 2 * perPage)) new Image().src = thumbnail(i);
}

const thumbnail = (i) => `/picture/thumbnail/${columns.gender[i]}/${encodeURIComponent(columns.stem[i])}?v=${columns.version[i]}`;

function drawTile(tile) {
  const value = columns.value[tile.dataset.row];
  tile.querySelector("b").textContent = value === null ? "–" : short(value);
  tile.classList.toggle("labelled", value !== null);
  tile.classList.toggle("at", Number(tile.dataset.place) === at);
}

function startSweeping() {
  const box = $("grid");
  const paint = (event) => {
    const tile = document.elementFromPoint(event.clientX, event.clientY)?.closest(".tile");
    if (!tile) return;
    const i = Number(tile.dataset.row), before = at;
    at = Number(tile.dataset.place);
    if (columns.value[i] !== brush) { set(i, brush); count(); }
    for (const other of box.children) if (other === tile || Number(other.dataset.place) === before) drawTile(other);
  };
  box.addEventListener("pointerdown", (event) => { if (event.button === 0) { sweeping = true; box.setPointerCapture(event.pointerId); paint(event); } });
  box.addEventListener("pointermove", (event) => { if (sweeping) paint(event); });
  for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => { sweeping = false; });
}

// Keys

function key(event) {
  if ($("label").hidden || $("keys").open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select")) return;
  if (event.repeat && !/^(Arrow|Page)/.test(event.key)) return; // a held key moves repeatedly, but labels once
  const number = "12345".indexOf(event.key);
  const acts = {
    ArrowRight: () => move(1),
    ArrowLeft: () => move(-1),
    ArrowDown: () => move(grid ? across : 1),
    ArrowUp: () => move(grid ? -across : -1),
    PageDown: () => move(grid ? perPage : 10),
    PageUp: () => move(grid ? -perPage : -10),
    Home: () => move(-view.length),
    End: () => move(view.length - 1 - at),
    Enter: confirmLabel,
    x: () => setHere(null),
    Delete: () => setHere(null),
    u: undo,
    g: toggleGrid,
    p: () => { showPrediction = !showPrediction; draw(); },
    a: () => step(1),
    A: () => step(-1),
    "?": () => $("keys").showModal(),
  };
  const act = number >= 0 ? () => { brush = about.levels[number]; setHere(brush); } : acts[event.key];
  if (!act || (event.key === "Enter" && event.target.matches("button"))) return;
  event.preventDefault();
  inTurn(act);
}

function step(by) {
  const names = about.attributes.map((a) => a.name);
  return choose(names[(names.indexOf(attribute) + by + names.length) % names.length], here());
}
