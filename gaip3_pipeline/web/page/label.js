// The label tab: one attribute at a time over a large picture, or a grid to sweep many pictures at once.

import { address, keep } from "./address.js";
import { called, language, t } from "./i18n.js";
import { allSaved, get, labels, post, save, session, unsaved } from "./server.js";
import { said } from "./said.js";
import { problem, toast } from "./say.js";

const $ = (id) => document.getElementById(id);
const AHEAD = 10, BEHIND = 3; // pictures fetched and decoded in advance
const POLL = 2000; // ms between requests for labels of others
const TILE = 104 / 128; // width over height
const FRACTIONS = { 0: "0", 0.25: "¼", 0.5: "½", 0.75: "¾", 1: "1" };

let about, who;
let columns; // as the server sends them: a column for each property, an entry for each image
let rows = new Map(); // "gender/stem" -> index into the columns
let cursor = 0; // the number of the last change that is shown
let attribute;
let cutOff = null; // least suspicion of a label that looks wrong
let examples = {}; // level -> "gender/stem" of the pictures that users chose as examples
let view = []; // indices of the images that pass the filters, in order; fixed until a filter changes
let at = 0;
let grid = false, zoomed = false, brush = 1, showPrediction = false;
let like = "", near = new Map(); // for the order "similar": the image, and the rank of each index
let chosen = new Set(), selecting = false; // indices of the images selected in the grid; whether a click selects
let suspected = new Map(); // by index: the label and its suspicion before it was set here
let together = 1; // labels that the next undo takes back
const pictures = new Map(); // index -> <img>, large

export async function startLabel(settings, name) {
  about = settings;
  who = name;
  for (const { name: a } of about.attributes) {
    const button = document.createElement("button");
    button.dataset.attribute = a;
    button.setAttribute("role", "tab");
    button.onclick = () => inTurn(() => choose(a));
    $("attributes").append(button);
  }
  inLanguage();
  for (const id of ["show", "sex", "order"]) $(id).addEventListener("change", () => { $(id).blur(); inTurn(() => refilter(id)); });
  $("wrong").onclick = () => inTurn(() => { $("show").value = "wrong"; $("order").value = "suspicion"; grid = false; filter(); });
  $("mode").onclick = toggleGrid;
  $("select").onclick = toggleSelecting;
  $("zoom").onclick = () => inTurn(toggleZoom);
  $("similar").onclick = () => inTurn(findSimilar);
  $("large").onclick = showExamples;
  $("exemplify").onclick = () => inTurn(exemplify);
  $("undo").onclick = () => inTurn(undo);
  $("help").onclick = () => $("keys").showModal();
  $("confirm").onclick = () => inTurn(confirmLabel);
  $("remove").onclick = () => inTurn(() => setHere(null));
  $("previous").onclick = () => inTurn(() => move(-1));
  $("skip").onclick = () => inTurn(() => move(1));
  // after a click, Enter and the space bar are keys of the tab again; a button that was reached by keyboard keeps the focus
  $("label").addEventListener("click", (event) => { if (event.detail) event.target.closest("button")?.blur(); });
  addEventListener("keydown", key);
  addEventListener("resize", () => { if (grid) drawGrid(); });
  addEventListener("tab", (event) => {
    if (event.detail !== "label" || !attribute) return;
    const { place } = address();
    if (Object.keys(place).length && !isHere(place)) inTurn(() => go(place));
    else inTurn(draw);
  });
  addEventListener("refreshed", () => { if (attribute && !chosen.size) inTurn(() => choose(attribute, here())); }); // there may be a new review
  addEventListener("language", () => { inLanguage(); if (attribute) inTurn(() => { inWords(); draw(); }); });
  startSweeping();
  labels.onState = (count, failing) => {
    $("saved").textContent = failing ? t("not_saved", { n: count }) : count ? t("saving", { n: count }) : t("saved");
    $("saved").className = failing ? "failing" : count ? "waiting" : "";
  };
  labels.onChanges = noteSaved;
  labels.onRefused = (_sent, message) => { toast(message); inTurn(() => choose(attribute, here())); };
  const { tab, place } = address();
  await inTurn(() => go(tab === "label" ? place : {}));
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

// The place in the address: attribute, filters, order and picture

const place = () => ({
  attribute, show: $("show").value === "all" ? "" : $("show").value, sex: $("sex").value, order: $("order").value === "name" ? "" : $("order").value,
  like: $("order").value === "similar" ? like : "", view: grid ? "grid" : "", zoom: zoomed ? "1" : "", picture: here() ?? "",
});

const isHere = (wanted) => Object.entries(place()).every(([name, value]) => value === (wanted[name] ?? ""));

async function go(wanted) {
  const known = (name) => about.attributes.some((a) => a.name === name);
  const option = (id, value) => { $(id).value = [...$(id).options].some((o) => o.value === value) ? value : $(id).options[0].value; };
  option("show", wanted.show);
  option("sex", wanted.sex);
  option("order", wanted.order);
  like = wanted.like ?? "";
  if ($("order").value === "similar" && !like) $("order").value = "name";
  grid = wanted.view === "grid";
  zoomed = wanted.zoom === "1";
  await choose([wanted.attribute, localStorage.attribute].find(known) ?? about.attributes[0].name, wanted.picture ?? null);
}

// Texts that `translate` does not fill in: those with values

function inLanguage() {
  for (const button of $("attributes").children) button.textContent = called(button.dataset.attribute);
  for (const option of $("show").options) if (option.value in FRACTIONS) option.textContent = t("show_level", { level: FRACTIONS[option.value] });
}

function inWords() {
  const { meaning } = about.attributes.find((a) => a.name === attribute);
  $("meaning").textContent = `${called(attribute)}: ${language === "ko" ? t(`meaning_${attribute}`) : meaning}`;
  $("order").querySelector("[value=similar]").textContent = t("order_similar", { image: like.split("/")[1] ?? "" });
  labels.onState(unsaved().length, false);
  drawLevels();
  count();
}

async function load(name) {
  const found = await get(`/api/labels/${name}`);
  attribute = name;
  ({ columns, cursor, examples } = found);
  cutOff = found.cut_off;
  rows = new Map(columns.stem.map((stem, i) => [`${columns.gender[i]}/${stem}`, i]));
  pictures.clear();
  problem(said(found.problem));
  for (const button of $("attributes").children) {
    button.classList.toggle("on", button.dataset.attribute === name);
    button.setAttribute("aria-selected", button.dataset.attribute === name);
  }
  const reviewed = [...$("order").options].filter((o) => o.value !== "name" && o.value !== "similar");
  for (const option of [...reviewed, $("show").querySelector("[value=wrong]")]) option.disabled = !found.reviewed;
  if (!found.reviewed && reviewed.some((o) => o.selected)) $("order").value = "name";
  if (!found.reviewed && $("show").value === "wrong") $("show").value = "all";
  $("wrong").hidden = !found.reviewed;
  if ($("order").value === "similar") await rank();
  inWords();
}

// The ranks of the images that are similar to `like` in the attribute; without any, the order is by name.
async function rank() {
  try {
    const { images } = await get(`/api/similar/${attribute}/${like.split("/").map(encodeURIComponent).join("/")}`);
    near = new Map(images.map((image, i) => [rows.get(image), i]));
  } catch (error) {
    $("order").value = "name";
    toast(error.message);
  }
}

// Filters and order. The view does not change while the user labels, so that no image moves.

function filter(image = null) {
  const show = $("show").value, sex = $("sex").value, order = $("order").value;
  const value = columns.value;
  const shown = {
    all: () => true,
    wrong: looksWrong,
    unlabelled: (i) => value[i] === null,
    labelled: (i) => value[i] !== null,
    between: (i) => value[i] !== null && !(value[i] in FRACTIONS),
  }[show] ?? ((i) => value[i] === Number(show));
  view = [...value.keys()].filter((i) => (!sex || columns.gender[i] === sex) && shown(i));
  if (order === "similar") {
    view = view.filter((i) => near.has(i)).sort((i, j) => near.get(i) - near.get(j));
  } else if (order !== "name") {
    const by = columns[order], sign = order === "next" ? 1 : -1;
    view = view.filter((i) => by[i] !== null).sort((i, j) => sign * (by[i] - by[j]));
  }
  const found = image === null ? -1 : view.findIndex((i) => keyOf(i) === image);
  at = Math.max(found, 0);
  if (found < 0 && order === "name" && show === "all") at = Math.max(view.findIndex((i) => value[i] === null), 0); // go on where it stopped
  chosen.clear();
  draw();
}

const looksWrong = (i) => cutOff !== null && columns.suspicion[i] !== null && columns.suspicion[i] >= cutOff;

// Most labels are right, so the order by suspicion begins with those that look wrong only; another choice of images shows the others.
function refilter(id) {
  if (id !== "order" && $("order").value === "similar") $("order").value = "name"; // that order shows a part of the images only
  if (id === "order" && $("order").value === "suspicion" && $("show").value === "all") $("show").value = "wrong";
  filter();
}

async function findSimilar() {
  if (!view.length) return;
  like = here();
  $("order").value = "similar";
  await rank();
  if ($("order").value !== "similar") return;
  if ($("show").value === "wrong") $("show").value = "all";
  grid = true;
  inWords();
  filter();
}

const here = () => (view.length ? keyOf(view[at]) : null);
const keyOf = (i) => `${columns.gender[i]}/${columns.stem[i]}`;

// Setting values

function set(i, value) {
  save({ attribute, gender: columns.gender[i], stem: columns.stem[i], value, seen: columns.value[i] }, who());
  suspected.set(i, [columns.value[i], columns.suspicion[i] ?? suspected.get(i)?.[1] ?? null]);
  columns.value[i] = value;
  columns.suspicion[i] = null;
  together = 1;
}

function setHere(value) {
  if (chosen.size) { setChosen(() => value); return; }
  if (!view.length) return;
  if (value === null && columns.value[view[at]] === null) { move(1); return; }
  const before = wrong();
  set(view[at], value);
  count();
  if (before && !wrong()) toast(t("wrong_done", { attribute: called(attribute) }));
  move(1, $("show").value === "wrong" && !wrong());
}

function confirmLabel() {
  if (chosen.size) setChosen((i) => columns.value[i]);
  else if (view.length && columns.value[view[at]] !== null) setHere(columns.value[view[at]]);
}

// Label all selected images; those without a label that are to stay so are left out.
function setChosen(valueOf) {
  const changed = [...chosen].filter((i) => columns.value[i] !== null || valueOf(i) !== null);
  const values = new Set(changed.map(valueOf));
  for (const i of changed) set(i, valueOf(i));
  together = changed.length;
  if (changed.length) toast(t("labelled_selected", { n: changed.length, level: [...values].map(short).join(", ") }));
  chosen.clear();
  count();
  draw();
}

function noteSaved(changes, sent) {
  // Somebody else may have labelled the same image meanwhile: the last value counts, and both are in the history.
  const before = new Map(sent.map((label) => [`${label.attribute}/${label.gender}/${label.stem}`, label.seen]));
  for (const change of changes) {
    const seen = before.get(`${change.attribute}/${change.gender}/${change.stem}`);
    if (change.before !== seen && sent.length === 1) toast(t("set_meanwhile", { image: change.stem, before: short(change.before), after: short(change.after) }));
  }
  drawHistory();
}

async function undo() {
  await allSaved();
  const steps = together;
  together = 1;
  for (let k = 0; k < steps; k++) if (!await undoOne()) return;
}

async function undoOne() {
  try {
    const { change } = await post("/api/undo", { who: who(), session });
    if (!change) { toast(t("nothing_to_undo")); return false; }
    if (change.attribute !== attribute) await choose(change.attribute, `${change.gender}/${change.stem}`);
    take(change);
    unsettle(change);
    const i = rows.get(`${change.gender}/${change.stem}`);
    let there = view.indexOf(i);
    if (there < 0) { view.splice(at, 0, i); there = at; }
    at = there;
    count();
    draw();
    return true;
  } catch (error) { toast(error.message); return false; }
}

async function restore(change) {
  await allSaved();
  try {
    take((await post(`/api/restore/${change.id}`, { who: who(), session })).change);
    together = 1;
    count();
    draw();
  } catch (error) { toast(error.message); }
}

// After an undo a label that looked wrong looks wrong again.
function unsettle(change) {
  const i = rows.get(`${change.gender}/${change.stem}`), [value, suspicion] = suspected.get(i) ?? [];
  if (value === change.after && suspicion !== undefined) columns.suspicion[i] = suspicion;
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
  const attributes = [...new Set(others.map((c) => called(c.attribute)))].join(", ");
  toast(t(others.length > 1 ? "others_n" : "others_1", { who: names, n: others.length, attributes }));
  count();
  draw();
}

// Drawing

function draw() {
  $("single").hidden = grid;
  $("grid").hidden = !grid;
  $("mode").textContent = t(grid ? "one_picture" : "grid");
  for (const id of ["skip", "previous"]) $(id).hidden = grid;
  for (const id of ["confirm", "remove"]) $(id).hidden = grid && !chosen.size;
  $("select").hidden = !grid;
  for (const [id, on] of [["select", selecting], ["zoom", zoomed]]) {
    $(id).classList.toggle("on", on);
    $(id).setAttribute("aria-pressed", on);
  }
  if (grid) drawGrid(); else drawPicture();
  drawChosen();
  drawPrediction();
  drawHistory();
  keep(place());
}

// What depends on the selection or on the image at hand
function drawChosen() {
  $("selected").hidden = !grid || !chosen.size;
  $("selected").textContent = t("selected", { n: chosen.size });
  for (const id of ["confirm", "remove"]) $(id).hidden = grid && !chosen.size;
  markLevel();
  const value = view.length ? columns.value[view[at]] : null, level = value !== null && FRACTIONS[value];
  $("exemplify").hidden = !level || grid;
  if (level) $("exemplify").textContent = t(examples[value] === here() ? "exemplify_not" : "exemplify", { level });
  $("similar").hidden = !view.length;
}

function move(step, isDone = false) {
  if (!view.length) return;
  const next = Math.min(Math.max(at + step, 0), view.length - 1);
  if (next === at && step > 0 && !isDone) toast(t("last_image"));
  at = next;
  draw();
}

const aspect = () => (zoomed && about.attributes.find((a) => a.name === attribute).aspect) || null;

function toggleZoom() {
  zoomed = !zoomed;
  pictures.clear();
  drawLevels();
  draw();
  if (zoomed && !aspect()) toast(t("no_zoom", { attribute: called(attribute) }));
}

const pictureOf = (kind, i) => `/picture/${kind}/${columns.gender[i]}/${encodeURIComponent(columns.stem[i])}?v=${columns.version[i]}`;

function large(i) {
  let img = pictures.get(i);
  if (!img) {
    img = new Image();
    img.alt = columns.stem[i];
    img.dataset.key = keyOf(i);
    img.src = pictureOf(aspect() ? `region/${attribute}` : "large", i);
    img.decode().catch(() => { img.dataset.broken = "yes"; if (view[at] === i && !grid) drawPicture(); });
    pictures.set(i, img);
    if (pictures.size > 4 * (AHEAD + BEHIND)) pictures.delete(pictures.keys().next().value);
  }
  return img;
}

function drawPicture() {
  if (!view.length) {
    $("picture").replaceChildren(paragraph(nothing()));
    $("caption").textContent = "";
    return;
  }
  const i = view[at], img = large(i);
  if (img.dataset.broken) get(img.getAttribute("src")).catch((e) => $("picture").replaceChildren(paragraph(`${columns.stem[i]}: ${e.message}`)));
  else if ($("picture").firstChild !== img) $("picture").replaceChildren(img);
  $("caption").textContent = t("caption", { sex: t(columns.gender[i]), stem: columns.stem[i], place: at + 1, all: view.length.toLocaleString("en") });
  for (let k = 1; k <= AHEAD; k++) if (at + k < view.length) large(view[at + k]);
  for (let k = 1; k <= BEHIND; k++) if (at - k >= 0) large(view[at - k]);
}

function nothing() {
  if (!columns.stem.length) return t("no_photographs");
  return $("show").value === "wrong" && !wrong() ? t("none_wrong", { attribute: called(attribute) }) : t("nobody_matches");
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
    button.title = t("level_key", { key: k + 1 });
    const img = exampleOf(level, k);
    const name = document.createElement("b");
    name.textContent = FRACTIONS[level];
    const hint = document.createElement("kbd");
    hint.textContent = k + 1;
    button.append(img, name, hint);
    button.onclick = () => inTurn(() => { brush = level; if (grid && !chosen.size) markLevel(); else setHere(level); });
    return button;
  }));
}

function exampleOf(level, k) {
  const img = new Image();
  img.alt = `${called(attribute)} ${FRACTIONS[level]}`;
  // the last part only makes the browser ask again for another example
  img.src = `/picture/example/${attribute}/${k}?view=${aspect() ? "region" : "large"}&of=${encodeURIComponent(examples[level] ?? "")}`;
  img.style.aspectRatio = aspect() ?? TILE;
  return img;
}

function showExamples() {
  $("examples-title").textContent = t("examples_of", { attribute: $("meaning").textContent });
  $("examples").querySelector("div").replaceChildren(...about.levels.map((level, k) => {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    caption.textContent = FRACTIONS[level] + (examples[level] ? ` · ${t("own_example")}` : "");
    figure.append(exampleOf(level, k), caption);
    return figure;
  }));
  $("examples").showModal();
}

// Make the image at hand the example of its level, or no longer.
async function exemplify() {
  await allSaved();
  const i = view[at], level = columns.value[i], own = examples[level] === keyOf(i);
  await post("/api/examples", { attribute, gender: columns.gender[i], stem: columns.stem[i], chosen: !own });
  if (own) delete examples[level]; else examples[level] = keyOf(i);
  toast(t(own ? "exemplified_not" : "exemplified", { image: columns.stem[i], level: FRACTIONS[level] }));
  drawLevels();
  drawChosen();
}

function markLevel() {
  const value = grid ? brush : view.length ? columns.value[view[at]] : null;
  for (const button of $("levels").children) button.classList.toggle("on", value !== null && Number(button.dataset.level) === value);
}

function drawPrediction() {
  const i = view[at];
  if (grid) { $("prediction").textContent = ""; return; }
  const predicted = view.length ? columns.predicted[i] : null;
  if (predicted === null || predicted === undefined) { $("prediction").textContent = ""; return; }
  const value = columns.value[i];
  const label = value === null ? t("not_labelled") : t("label_is", { value: short(value) });
  // The prediction would bias the user, so it is shown only on request, or if the order is by suspicion.
  const shown = showPrediction || $("order").value === "suspicion";
  $("prediction").textContent = shown ? t("prediction", { label, value: predicted.toFixed(2), deviation: columns.uncertainty[i].toFixed(2) }) : t("prediction_hidden", { label });
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
      const when = new Date(change.time).toLocaleString(language, { dateStyle: "short", timeStyle: "short" });
      const what = change.undoes ? "undone_to" : change.before === change.after ? "confirmed" : "changed";
      line.append(t(what, { when, who: change.who, before: short(change.before), after: short(change.after) }));
      if (change.before !== change.after) {
        const back = document.createElement("button");
        back.textContent = t("back_to", { value: short(change.before) });
        back.onclick = () => inTurn(() => restore(change));
        line.append(back);
      }
      return line;
    }));
  }, 250);
}

const short = (value) => value === null ? t("none") : FRACTIONS[value] ?? value.toFixed(2).replace(/^0/, "");

// The number of labels that look wrong and were not checked yet
const wrong = () => columns.value.reduce((n, _, i) => n + (looksWrong(i) ? 1 : 0), 0);

function count() {
  const bars = new Map(about.levels.map((level) => [level, 0]));
  let between = 0, labelled = 0;
  for (const value of columns.value) {
    if (value === null) continue;
    labelled++;
    if (bars.has(value)) bars.set(value, bars.get(value) + 1); else between++;
  }
  const all = columns.value.length;
  const percent = all ? Math.round((100 * labelled) / all) : 0;
  $("count").textContent = t("labelled_of", { n: labelled.toLocaleString("en"), all: all.toLocaleString("en"), percent });
  const suspects = wrong();
  $("wrong").textContent = t(suspects > 1 ? "wrong_n" : `wrong_${suspects}`, { n: suspects });
  $("wrong").disabled = !suspects;
  const entries = [...bars].map(([level, n]) => [FRACTIONS[level], n]);
  if (between) entries.push([t("other_values"), between]);
  const most = Math.max(1, ...entries.map(([, n]) => n));
  $("histogram").replaceChildren(...entries.map(([name, n]) => {
    const box = document.createElement("div"), bar = document.createElement("i");
    box.title = `${name}: ${n}`;
    bar.style.height = `${Math.round((20 * n) / most)}px`;
    box.append(bar, `${name}: ${n}`);
    return box;
  }));
}

// The grid: one screen of thumbnails at a time. A click or a drag sets the marked value or, while selecting, selects.

let perPage = 1, across = 1;
let sweeping = null; // what a drag does to a tile

function toggleGrid() {
  grid = !grid;
  chosen.clear();
  draw();
}

function toggleSelecting() {
  selecting = !selecting;
  if (!selecting) chosen.clear();
  draw();
}

function drawGrid() {
  const box = $("grid");
  box.hidden = false;
  const { width } = box.getBoundingClientRect();
  const { bottom } = $("stage").getBoundingClientRect();
  const below = innerWidth <= 720 ? document.querySelector("aside").offsetHeight + 16 : 0;
  const height = bottom - below - box.getBoundingClientRect().top;
  const shape = aspect() ?? TILE;
  // The least number of rows that makes the tiles small enough; the tiles then fill the rows.
  const most = (width < 500 ? 84 : 132) * Math.max(1, shape);
  let down = 1;
  const wide = () => Math.floor((height / down - 10) * shape);
  while (wide() > most) down++;
  across = Math.max(1, Math.floor((width + 4) / (wide() + 10)));
  perPage = across * down;
  box.style.gridTemplateColumns = `repeat(${across}, ${wide() + 6}px)`;
  box.style.setProperty("--shape", shape);
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
      const predicted = document.createElement("i");
      predicted.textContent = columns.predicted[i]?.toFixed(2).replace(/^0/, "") ?? "";
      tile.append(predicted);
    }
    drawTile(tile);
    return tile;
  }));
  if (!view.length) box.replaceChildren(paragraph(nothing()));
  for (const i of view.slice(first + perPage, first + 2 * perPage)) new Image().src = thumbnail(i);
}

const thumbnail = (i) => pictureOf(aspect() ? `region/${attribute}` : "thumbnail", i);

function drawTile(tile) {
  const row = Number(tile.dataset.row), value = columns.value[row];
  tile.querySelector("b").textContent = value === null ? "–" : short(value);
  tile.classList.toggle("labelled", value !== null);
  tile.classList.toggle("at", Number(tile.dataset.place) === at);
  tile.classList.toggle("chosen", chosen.has(row));
}

function pick(place, on) {
  for (const i of [].concat(place).map((k) => view[k])) if (on) chosen.add(i); else chosen.delete(i);
}

function pickHere() {
  if (!grid || !view.length) return;
  pick(at, !chosen.has(view[at]));
  draw();
}

function startSweeping() {
  const box = $("grid");
  const tileAt = (event) => document.elementFromPoint(event.clientX, event.clientY)?.closest(".tile");
  const sweep = (event) => {
    const tile = tileAt(event);
    if (!tile) return;
    const before = at;
    at = Number(tile.dataset.place);
    sweeping(Number(tile.dataset.row));
    for (const other of box.children) if (other === tile || Number(other.dataset.place) === before) drawTile(other);
    drawChosen();
    keep(place());
  };
  const paint = (i) => { if (columns.value[i] !== brush) { set(i, brush); count(); } };
  box.addEventListener("pointerdown", (event) => {
    const tile = tileAt(event);
    if (event.button !== 0 || !tile) return;
    box.setPointerCapture(event.pointerId);
    const to = Number(tile.dataset.place);
    if (event.shiftKey) { // from the image at hand to this one
      pick(Array.from({ length: Math.abs(to - at) + 1 }, (_, k) => Math.min(to, at) + k), true);
      draw();
      return;
    }
    const on = !chosen.has(view[to]);
    sweeping = selecting || event.ctrlKey || event.metaKey ? (i) => { if (on) chosen.add(i); else chosen.delete(i); } : paint;
    sweep(event);
  });
  box.addEventListener("pointermove", (event) => { if (sweeping) sweep(event); });
  for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => { sweeping = null; });
}

// Keys

function key(event) {
  if ($("label").hidden || document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select")) return;
  if (event.repeat && !/^(Arrow|Page)/.test(event.key)) return; // a held key moves repeatedly, but labels once
  // with Korean input the key x gives ㅌ or "Process": then the key itself counts
  const letter = /^[ -~]$/.test(event.key) ? null : /^Key([A-Z])$/.exec(event.code)?.[1];
  const name = letter ? (event.shiftKey ? letter : letter.toLowerCase()) : event.key;
  const number = "12345".indexOf(name);
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
    s: () => { if (grid) toggleSelecting(); },
    " ": pickHere,
    Escape: () => { selecting = false; chosen.clear(); draw(); },
    z: toggleZoom,
    f: findSimilar,
    e: showExamples,
    p: () => { showPrediction = !showPrediction; draw(); },
    a: () => step(1),
    A: () => step(-1),
    "?": () => $("keys").showModal(),
  };
  const act = number >= 0 ? () => { brush = about.levels[number]; setHere(brush); } : acts[name];
  if (!act || ([" ", "Enter"].includes(event.key) && event.target.matches("button, a"))) return;
  event.preventDefault();
  inTurn(act);
}

function step(by) {
  const names = about.attributes.map((a) => a.name);
  return choose(names[(names.indexOf(attribute) + by + names.length) % names.length], here());
}
