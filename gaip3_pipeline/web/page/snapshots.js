// Two snapshots compared: labels, photographs and settings that differ, as pictures.

import { called, language, t } from "./i18n.js";
import { get } from "./server.js";

const $ = (id) => document.getElementById(id);
const MOST = 120; // pictures of a kind

let found = null; // the difference that is shown

export function startSnapshots() {
  addEventListener("tab", (event) => { if (event.detail === "refresh") list(); });
  addEventListener("refreshed", list);
  addEventListener("language", () => { list(); if (found) draw(); });
  for (const select of [$("snapshot-first"), $("snapshot-second")]) select.onchange = compare;
  $("compared").ontoggle = () => { if (!found) compare(); };
}

async function list() {
  const { snapshots } = await get("/api/snapshots");
  $("snapshots").hidden = snapshots.length < 2;
  if (snapshots.length < 2) return;
  const selects = [$("snapshot-first"), $("snapshot-second")];
  selects.forEach((select, i) => {
    const before = select.value;
    select.replaceChildren(...snapshots.map((s) => new Option(`${s.name} (${new Date(s.created).toLocaleString(language)})`, s.name)));
    select.value = snapshots.some((s) => s.name === before) ? before : snapshots.at(i - 2).name;
  });
  if ($("compared").open && !found) await compare();
}

async function compare() {
  try {
    found = await get(`/api/snapshots/${encodeURIComponent($("snapshot-first").value)}/${encodeURIComponent($("snapshot-second").value)}`);
    draw();
  } catch (error) {
    found = null;
    $("differences").textContent = error.message;
  }
}

function draw() {
  const name = (picture) => picture[1].split("/").at(-1);
  const parts = [
    part("labels_differ", found.labels, (l) => figure([l.picture], `${called(l.attribute)} ${value(l.before)} → ${value(l.after)}`, `${called(l.gender)} ${l.stem}`)),
    part("pictures_added", found.added, (p) => figure([p], "", name(p))),
    part("pictures_dropped", found.dropped, (p) => figure([p], "", name(p))),
    part("pictures_replaced", found.replaced, ([a, b]) => figure([a, b], `${t("was")} → ${t("is")}`, name(b))),
    settings(found.settings),
  ].flat();
  $("differences").replaceChildren(...(parts.length ? parts : [t("no_difference")]));
}

function part(title, items, drawn) {
  if (!items.length) return [];
  const box = document.createElement("div");
  box.className = "differing";
  box.append(...items.slice(0, MOST).map(drawn));
  const more = document.createElement("p");
  if (items.length > MOST) more.textContent = t("all_differences", { n: items.length - MOST, first: $("snapshot-first").value, second: $("snapshot-second").value });
  return [heading(title, items.length), box, more];
}

function settings(changed) {
  if (!changed.length) return [];
  const table = document.createElement("table");
  for (const [i, cells] of [[t("setting"), t("was"), t("is")], ...changed].entries()) {
    const line = document.createElement("tr");
    line.append(...cells.map((text) => Object.assign(document.createElement(i ? "td" : "th"), { textContent: text === "None" ? t("none") : text })));
    table.append(line);
  }
  return [heading("settings_differ", changed.length), table];
}

const heading = (title, n) => Object.assign(document.createElement("h3"), { textContent: t(title, { n: n.toLocaleString("en") }) });
const value = (x) => x === null ? t("none") : String(x);

function figure(pictures, change, name) {
  const box = document.createElement("figure"), caption = document.createElement("figcaption");
  for (const picture of pictures) {
    if (!picture) continue;
    const img = new Image();
    img.loading = "lazy";
    img.alt = name;
    img.src = `/picture/snapshot/${[picture[0], ...picture[1].split("/")].map(encodeURIComponent).join("/")}`;
    box.append(img);
  }
  caption.append(change, ...(change ? [document.createElement("br")] : []), Object.assign(document.createElement("small"), { textContent: name }));
  box.append(caption);
  return box;
}
