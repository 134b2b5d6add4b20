// The frame of the page: its tabs, the name of the person, and messages.

import { get } from "./server.js";
import { startLabel } from "./label.js";
import { startRefresh } from "./refresh.js";
import { startStudio } from "./studio.js";
import { switchLanguage, translate } from "./i18n.js";

const $ = (id) => document.getElementById(id);
function tab() {
  const name = ["#refresh", "#studio"].includes(location.hash) ? location.hash.slice(1) : "label";
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== name;
  for (const link of document.querySelectorAll("nav a.tab")) link.classList.toggle("on", link.hash === `#${name}`);
  $("language").hidden = name !== "studio"; // the other tabs are English
  $("who").parentElement.hidden = $("saved").hidden = name === "studio";
  dispatchEvent(new CustomEvent("tab", { detail: name }));
}

const about = await get("/api/about");
document.title = `${about.root} – gaip3 labels`;
$("root").textContent = about.root;
for (const [name, link] of Object.entries(about.links)) {
  const a = document.createElement("a");
  Object.assign(a, { href: link, target: "_blank", rel: "noopener", textContent: `${name} ↗` });
  $("links").append(a);
}
$("who").value = localStorage.who || about.who;
$("who").addEventListener("change", () => { localStorage.who = $("who").value ||= about.who; $("who").blur(); });
$("language").addEventListener("click", switchLanguage);
translate();
startStudio();
startRefresh();
await startLabel(about, () => $("who").value);
addEventListener("hashchange", tab);
tab();
