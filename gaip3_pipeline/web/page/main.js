// The frame of the page: its tabs, the name of the person, and messages.

import { get } from "./server.js";
import { startLabel } from "./label.js";
import { startRefresh } from "./refresh.js";
import { startSnapshots } from "./snapshots.js";
import { startStudio } from "./studio.js";
import { address } from "./address.js";
import { switchLanguage, t, translate } from "./i18n.js";
import { title } from "./say.js";

const $ = (id) => document.getElementById(id);
function tab() {
  const name = address().tab;
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== name;
  for (const link of document.querySelectorAll("nav a.tab")) {
    link.classList.toggle("on", link.hash === `#${name}`);
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("who").parentElement.hidden = $("saved").hidden = name === "studio";
  title(`${t(name)} – ${about.root}`);
  dispatchEvent(new CustomEvent("tab", { detail: name }));
}

const about = await get("/api/about");
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
startRefresh(about.root);
startSnapshots();
await startLabel(about, () => $("who").value);
addEventListener("hashchange", tab);
addEventListener("language", () => title(`${t(address().tab)} – ${about.root}`));
tab();
