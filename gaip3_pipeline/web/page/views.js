// The views of the studio: many faces, neighbours, sweeps, mixtures, before and after, two models, a photograph. Each has open(panel,
// studio), which builds it (again for another chosen face, if it is ofChosen), and optionally follow(), called when a slider moves, and
// after(), called when the chosen face is drawn.

import { Refused, answered, get, reach, session } from "./server.js";
import { t } from "./i18n.js";
import { said } from "./said.js";
import { copy, download, failed, name, settled } from "./faces.js";
import { commandOf } from "./link.js";
import { toast } from "./say.js";

const STEPS = 7; // pictures of a sweep

const el = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const help = (key) => el("p", { className: "s-help", textContent: t(key) });
const slider = (text, value, change, { max = 1, step = 0.01, min = 0 } = {}) => {
  const input = el("input", { type: "range", min, max, step, value, ariaLabel: text });
  input.addEventListener("input", () => change(Number(input.value)));
  return el("label", { className: "s-line" }, el("span", { textContent: text }), input);
};

// Update the pictures of a pane in place: the elements stay, so that nothing flickers and the focus is kept.
function fill(box, shown, press) {
  while (box.children.length > shown.length) box.lastChild.remove();
  shown.forEach((one, i) => {
    const button = box.children[i] ?? box.appendChild(el("button", { className: "s-pick" }, new Image()));
    Object.assign(button.firstChild, { src: one.src, alt: t("face_at", { n: i + 1, name: name(one.face) }) });
    button.title = name(one.face);
    button.onclick = () => press(one, i);
  });
}

// Arrow keys move between the pictures of a box, by their positions on the screen.
function walk(box) {
  box.addEventListener("keydown", (event) => {
    const all = [...box.querySelectorAll(".s-pick")], at = all.indexOf(document.activeElement);
    if (at < 0) return;
    const columns = all.filter((b) => b.offsetTop === all[0].offsetTop).length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (!by) return;
    event.preventDefault();
    all[at + by]?.focus();
  });
  return box;
}

const many = {
  shown: [],
  open(panel, studio) {
    const zip = el("input", { type: "number", min: 1, max: 10000, value: 100, ariaLabel: t("zip") });
    const line = el("button", { textContent: t("command"), id: "s-list-command" });
    line.addEventListener("click", () => {
      const file = `faces-${first()}.png`, words = commandOf(studio, studio.applied(studio.faces[0]), file, studio.faces.length);
      copy(words, t("list_command_copied", { file }));
    });
    const all = el("button", { textContent: t("sheet") }), ask = el("button", { textContent: `${t("zip")} …`, title: t("zip_title") });
    const first = () => studio.faces[0].latents.seed ?? Number(document.getElementById("s-seed").value);
    all.addEventListener("click", () => download(this.shown.map((s) => s.face), `faces-${first()}.png`));
    ask.addEventListener("click", () => {
      const { temperature, guidance, detail, prior } = studio.applied(studio.faces[0]);
      const values = studio.set.values.map((v) => v ?? "").join(",");
      const query = new URLSearchParams({ tab: session, n: zip.value, seed: first(), temperature, guidance, detail, prior, values });
      el("a", { href: `/api/studio/faces.zip?${query}`, download: "" }).click();
    });
    panel.append(help("many_help"), walk(el("div", { className: "s-grid", id: "s-grid" })), el("div", { className: "acts" }, all, line, ask, zip));
    this.mark(panel, studio);
  },
  async follow(panel, studio) {
    const faces = studio.faces, shown = await studio.draw("grid", faces.map((f) => studio.applied(f)));
    const box = panel.querySelector("#s-grid");
    if (!shown || !box) return;
    panel.querySelector("#s-list-command").hidden = !faces.every((f, i) => f.latents.seed === faces[0].latents.seed + i); // of an opened PNG
    const press = (_, i) => studio.choose(faces[i]);
    fill(box, this.shown = shown, press);
    this.mark(panel, studio);
    if (studio.fidelity) settled("grid", async () => {
      const better = await studio.retouch("retouched", shown.map((s) => s.face)).catch(failed);
      if (better && box.isConnected && this.shown === shown) fill(box, this.shown = better, press);
    });
  },
  mark(panel, studio) {
    [...panel.querySelectorAll(".s-pick")].forEach((b, i) => b.classList.toggle("on", studio.faces[i] === studio.chosen));
  },
};

const neighbours = {
  ofChosen: true, distance: 0.5,
  open(panel, studio) {
    const back = el("button", { textContent: t("back"), disabled: !studio.history.length });
    back.addEventListener("click", () => { this.from = null; studio.choose(studio.history.pop(), true); });
    panel.append(help("neighbours_help"), walk(el("div", { className: "s-nine" })), el("div", { className: "acts" }, back,
      slider(t("distance"), this.distance, (v) => { this.distance = v; this.follow(panel, studio).catch(failed); }, { min: 0.05 })));
    if (this.from !== studio.chosen) {
      this.from = studio.chosen;
      this.seeds = Array.from({ length: 8 }, () => Math.floor(Math.random() * 1e9));
    }
  },
  async follow(panel, studio) {
    const { chosen } = studio, ring = this.seeds.map((seed) =>
      ({ ...chosen, drawn: undefined, fidelity: 0, latents: { first: chosen.latents, second: { seed }, share: [this.distance] } }));
    const faces = [...ring.slice(0, 4), chosen, ...ring.slice(4)], shown = await studio.draw("neighbours", faces.map((f) => studio.applied(f)));
    const box = panel.querySelector(".s-nine");
    if (!shown || !box) return;
    fill(box, shown, (_, i) => {
      if (i === 4) return;
      studio.history.push(chosen);
      this.walking = true;
      studio.choose(faces[i], true);
    });
    box.children[4].classList.add("on");
    if (this.walking) box.children[4].focus();
    this.walking = false;
  },
};

const sweep = {
  open(panel, studio) {
    panel.append(help("sweep_help"), ...studio.about.attributes.map((a) => el("div", { className: "s-strip" },
      el("span", { textContent: t(a.name) }), walk(el("div")))));
  },
  async follow(panel, studio) {
    const face = studio.applied(studio.chosen), at = (k) => k / (STEPS - 1), rows = studio.about.attributes.length;
    const faces = Array.from({ length: rows * STEPS }, (_, i) =>
      ({ ...face, values: face.values.map((v, j) => j === Math.floor(i / STEPS) ? at(i % STEPS) : v) }));
    const shown = await studio.draw("sweep", faces);
    if (!shown) return;
    panel.querySelectorAll(".s-strip > div").forEach((box, row) =>
      fill(box, shown.slice(row * STEPS, (row + 1) * STEPS), (_, k) => studio.setValue(row, at(k))));
  },
};

const mix = {
  shares: null, values: 0.5, other: null,
  open(panel, studio) {
    const pick = el("div", { className: "s-row", id: "s-others" }), groups = studio.groups ?? [];
    if (this.shares?.length !== groups.length) this.shares = groups.map((_, i) => (2 * i >= groups.length ? 1 : 0));
    const three = el("div", { className: "s-three" }, ...["A", "A + B", "B"].map((text) =>
      el("figure", {}, el("img", { alt: text }), el("figcaption", { textContent: text }))));
    const level = (i) => (i === 0 ? t("coarsest") : i === groups.length - 1 ? t("finest") : t("level", { i: i + 1, n: groups.length }));
    const lines = groups.map((_, i) => slider(level(i), this.shares[i], (v) => { this.shares[i] = v; this.draw(panel, studio).catch(failed); }));
    lines.push(slider(t("values"), this.values, (v) => { this.values = v; this.draw(panel, studio).catch(failed); }));
    const take = el("button", { textContent: t("take"), id: "s-take" });
    panel.append(help("mix_help"), el("h3", { textContent: t("with") }), walk(pick), el("div", { className: "s-mixing" }, three,
      el("div", { className: "s-lines" }, ...lines, take)), el("h3", { textContent: t("crossover") }), walk(el("div", { className: "s-row", id: "s-crossover" })),
      el("h3", { textContent: t("between") }), walk(el("div", { className: "s-row", id: "s-between" })));
  },
  async after(panel, studio) {
    const others = [...studio.kept, ...(await studio.draw("others", studio.faces.slice(0, 12).map((f) => studio.applied(f))) ?? [])];
    const box = panel.querySelector("#s-others");
    if (!box || !others.length) return;
    if (panel.querySelector(".s-lines").children.length < 3) { panel.replaceChildren(); this.open(panel, studio); return this.after(panel, studio); }
    fill(box, others, (one) => { this.other = one.face; this.after(panel, studio).catch(failed); });
    this.other ??= others.find((o) => o.face.latents.seed !== studio.now.face.latents.seed)?.face ?? others[0].face;
    others.forEach((o, i) => box.children[i].classList.toggle("on", JSON.stringify(o.face.latents) === JSON.stringify(this.other.latents)));
    await this.draw(panel, studio);
  },
  async draw(panel, studio) {
    if (!this.other || !studio.now) return;
    const a = studio.now.face, b = this.other, count = this.shares.length;
    const mixed = (share, part) => ({
      ...a, drawn: undefined, fidelity: 0, latents: { first: a.latents, second: b.latents, share },
      values: a.values.map((v, i) => (1 - part) * v + part * b.values[i]),
    });
    const now = mixed(this.shares, this.values);
    const cuts = Array.from({ length: count + 1 }, (_, k) => mixed(this.shares.map((_s, i) => (i >= count - k ? 1 : 0)), this.values));
    const steps = Array.from({ length: STEPS }, (_, k) => mixed([k / (STEPS - 1)], k / (STEPS - 1)));
    const shown = await studio.draw("mix", [a, now, b, ...cuts, ...steps]);
    if (!shown || !panel.querySelector(".s-three")) return;
    panel.querySelectorAll(".s-three img").forEach((img, i) => { img.src = shown[i].src; });
    panel.querySelector("#s-take").onclick = () => studio.adopt(now);
    const set = (shares) => { this.shares = shares; panel.querySelectorAll(".s-lines input").forEach((input, i) => { input.value = shares[i] ?? this.values; }); };
    fill(panel.querySelector("#s-crossover"), shown.slice(3, 4 + count), (one) => { set([...one.face.latents.share]); this.draw(panel, studio).catch(failed); });
    fill(panel.querySelector("#s-between"), shown.slice(4 + count), (_, k) => {
      this.values = k / (STEPS - 1);
      set(this.shares.map(() => this.values));
      this.draw(panel, studio).catch(failed);
    });
  },
};

const retouch = {
  open(panel, studio) {
    if (!studio.about.can_retouch) { studio.command(panel, "no_critic"); return; }
    const wipe = el("div", { className: "s-wipe" }, el("img", { alt: t("before") }), el("img", { alt: t("after") }));
    panel.append(help("retouch_help"), wipe, slider(t("wipe"), 0.5, (v) => wipe.style.setProperty("--at", v)), el("p", { id: "s-why", role: "status" }));
  },
  async after(panel, { plain, now, fidelity }) {
    const why = panel.querySelector("#s-why"), pictures = panel.querySelectorAll(".s-wipe img");
    if (!why) return;
    pictures[0].src = plain.src;
    pictures[1].src = now.src;
    why.textContent = !fidelity ? t("set_fidelity") : now === plain ? t("retouching") : now.reason ? t("kept_as_is", { why: said(now.reason) }) : "";
  },
};

// The filmstrips of the trainings that made the root's generator.
function progress(strips) {
  return el("details", { id: "s-progress", hidden: !strips.length }, el("summary", { textContent: t("filmstrips") }),
    ...strips.map((asset) => el("figure", {}, el("figcaption", { textContent: t(`progress_${asset}`) }),
      el("img", { src: `/api/studio/progress/${asset}.jpg`, alt: "", loading: "lazy" }))));
}

const models = {
  async open(panel, studio) {
    panel.append(help("models_help"), progress(studio.about.progress));
    const { models: found } = await get(`/api/studio/models?tab=${session}`).catch((error) => { failed(error); return { models: [] }; });
    if (!panel.isConnected || studio.view !== "models") return;
    const of = (alias) => found.find((m) => m.aliases.includes(alias)), single = of("champion") && of("champion") === of("candidate");
    const aliases = ["champion", single ? "earlier" : "candidate"];
    this.pair = aliases.map(of);
    const there = this.pair.filter(Boolean), say = (text) => panel.append(el("p", { className: "s-say", textContent: text }));
    if (!there.length) { say(t("none_registered")); return; }
    if (single) say(t(there.length > 1 ? "same" : "alone", { number: there[0].number }));
    else if (there.length === 1) say(t("only", { alias: t(this.pair[0] ? "champion" : "candidate") }));
    panel.append(el("div", { className: "s-pairs" }, ...aliases.map((alias, i) => this.pair[i] && el("section", {},
      el("h3", { textContent: `${t(alias)} · ${t("version", { number: this.pair[i].number })}` }), walk(el("div", { className: "s-grid" })))).filter(Boolean)),
      figures(this.pair, aliases, studio.about.attributes));
    await this.follow(panel, studio).catch(failed);
  },
  async follow(panel, studio) {
    const boxes = [...panel.querySelectorAll(".s-grid")], faces = studio.faces.slice(0, 12).map((f) => studio.applied(f));
    await Promise.all((this.pair ?? []).filter(Boolean).map(async (m, i) => {
      const shown = await studio.draw(`model${i}`, faces, m.model);
      if (shown && boxes[i]) fill(boxes[i], shown, (_, k) => studio.choose(studio.faces[k]));
    }));
  },
};

// The main figures of the two versions, in words.
function figures(pair, aliases, attributes) {
  const plain = ["bits_per_dim", "leakage", "n_train", "epochs"].map((key) => [key, t(`figure_${key}`)]);
  const each = attributes.flatMap(({ name: a }) => ["r2", "spearman"].map((kind) => [`${kind}_${a}`, t(`figure_${kind}`, { what: t(a) })]));
  const rows = [...plain, ...each].filter(([key]) => pair.some((m) => m?.figures[key] !== undefined));
  const number = (x) => x === undefined ? "–" : Number(x.toPrecision(4)).toString();
  const row = (kind, cells) => el("tr", {}, ...cells.map((textContent) => el(kind, { textContent })));
  return el("table", {}, row("th", [t("figure"), ...aliases.map((alias) => t(alias))]),
    ...rows.map(([key, words]) => row("td", [words, ...pair.map((m) => number(m?.figures[key]))])));
}

// A data URL of the photograph plus the change by the sliders, cut + (now − seen), so that the photograph stays sharp.
async function laidOver(cut, seen, now) {
  const load = (src) => new Promise((done, fail) => { const i = new Image(); i.onload = () => done(i); i.onerror = fail; i.src = src; });
  const [base, before, after] = await Promise.all([cut, seen, now].map(load));
  const [width, height] = [base.naturalWidth, base.naturalHeight];
  const canvas = Object.assign(document.createElement("canvas"), { width, height }), pen = canvas.getContext("2d", { willReadFrequently: true });
  const pixels = (picture) => { pen.drawImage(picture, 0, 0, width, height); return pen.getImageData(0, 0, width, height); };
  const out = pixels(base), a = pixels(before).data, b = pixels(after).data;
  for (let i = 0; i < a.length; i += 1) if (i % 4 !== 3) out.data[i] += b[i] - a[i]; // a Uint8ClampedArray clips
  pen.putImageData(out, 0, 0);
  return canvas.toDataURL("image/png");
}

const photograph = {
  open(panel, studio) {
    if (!studio.about.can_encode) { studio.command(panel, "no_inputs"); return; }
    const file = el("input", { type: "file", accept: "image/jpeg,image/png,image/webp,image/bmp,image/tiff,image/avif", hidden: true, id: "s-file" });
    const button = el("button", { className: "strong", textContent: t("choose") });
    button.addEventListener("click", () => file.click());
    file.addEventListener("change", () => { if (file.files[0]) this.take(file.files[0]); });
    const part = this.part = el("button", { className: "s-part", ariaLabel: t("part"), title: t("part") });
    const whole = el("figure", { className: "s-whole" }, el("div", {}, el("img", { alt: t("whole"), draggable: false }), part),
      el("figcaption", { textContent: t("part_help") }),
      slider(t("part_size"), 1, (v) => this.move({ size: v }), { min: 0.1 }));
    this.drag(part);
    const three = el("div", { className: "s-three" }, ...["cut", "seen", "edited"].map((key) =>
      el("figure", {}, el("img", { alt: t(key) }), el("figcaption", { textContent: t(key) }))));
    panel.append(el("div", { className: "s-drop" }, help("photograph_help"), button, file), el("p", { id: "s-reading", role: "status" }),
      el("p", { id: "s-far", hidden: true }), el("div", { className: "s-cutting", hidden: true }, whole, three));
    this.panel = panel;
    this.studio = studio;
  },
  // Show the part that is cut out, the box in shares of the photograph, as a frame over it.
  frame() {
    const [left, top, right, bottom] = this.box, share = (x) => `${100 * x}%`, size = this.panel.querySelector(".s-whole input");
    Object.assign(this.part.style, { left: share(left), top: share(top), width: share(right - left), height: share(bottom - top) });
    if (document.activeElement !== size) size.value = Math.max(right - left, bottom - top);
  },
  // Move the frame by shares of the photograph, or give its longer side a `size`; it gets the proportions of the generator's pictures.
  move({ x = 0, y = 0, size = null }) {
    if (!this.box) return;
    const picture = this.panel.querySelector(".s-whole img"), ratio = picture.naturalHeight / picture.naturalWidth;
    const { width, height } = this.studio.about.training, [left, top, right, bottom] = this.box, wanted = (width / height) * ratio;
    // `across` and `down`: the sides of the frame
    const longer = size ?? Math.max(right - left, bottom - top), across = Math.min(1, longer, longer * wanted), down = Math.min(1, across / wanted);
    const middle = [(left + right) / 2 + x, (top + bottom) / 2 + y];
    const at = middle.map((m, i) => Math.min(Math.max(m - [across, down][i] / 2, 0), 1 - [across, down][i]));
    this.box = [at[0], at[1], at[0] + across, at[1] + down].map((n) => Math.min(n, 1));
    this.frame();
    settled("part", () => this.read(this.box));
  },
  drag(part) {
    part.addEventListener("pointerdown", (event) => part.setPointerCapture(event.pointerId));
    part.addEventListener("pointermove", ({ pointerId, movementX, movementY }) => {
      const { width, height } = part.parentElement.getBoundingClientRect();
      if (part.hasPointerCapture(pointerId)) this.move({ x: movementX / width, y: movementY / height });
    });
    part.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!by) return;
      event.preventDefault();
      this.move({ x: 0.02 * by[0], y: 0.02 * by[1] });
    });
  },
  async follow() { this.fill(); },
  async after() { this.fill(); },
  fill() {
    const pictures = this.panel?.querySelectorAll(".s-three img") ?? [], far = this.panel?.querySelector("#s-far");
    if (!this.cut || !pictures.length) return;
    this.panel.querySelector(".s-cutting").hidden = false;
    this.panel.querySelector(".s-whole img").src = this.whole;
    this.frame();
    far.hidden = !this.far;
    if (this.far) far.textContent = t(this.far.share < 1 ? "far" : "far_all", { share: Math.floor(1000 * this.far.share) / 10, n: this.far.held_out });
    pictures[0].src = this.cut;
    pictures[1].src = this.seen;
    // until the photograph's own face is drawn, the picture at hand is that of the face before
    if (!this.studio.now || this.studio.now === this.before || this.studio.chosen !== this.face) return;
    const turn = (this.turn = (this.turn ?? 0) + 1); // only the result of the last call is shown
    laidOver(this.cut, this.seen, this.studio.now.src).then((src) => { if (turn === this.turn) pictures[2].src = src; }).catch(failed);
  },
  async take(file) {
    document.getElementById("s-tab-photograph").click();
    const { studio, panel } = this, say = (text) => { const p = panel?.querySelector("#s-reading"); if (p) p.textContent = text; };
    if (!studio?.about.can_encode) return;
    const mb = (bytes) => Math.round(bytes / 1e6);
    if (file.size > studio.about.upload) { say(t("too_large", { name: file.name, mb: mb(file.size), most: mb(studio.about.upload) })); return; }
    if (!file.size) { say(t("empty_file", { name: file.name })); return; }
    settled("part", () => {}); // a part of the photograph before is no longer wanted
    await this.read(null, file);
  },
  // Ask for the face of `file`, cut as the pipeline cuts or to `box`.
  async read(box, file = this.file) {
    const { studio } = this, say = (text) => { const p = this.panel?.querySelector("#s-reading"); if (p) p.textContent = text; };
    say(t("reading"));
    try {
      const query = new URLSearchParams([["tab", session], ["pane", "photograph"], ...(box ?? []).map((share) => ["box", share])]);
      const reply = await answered(await reach(`/api/studio/photograph?${query}`, { method: "POST", body: file }));
      if (reply.status === 204) return; // a newer part is on its way
      const { cut, whole = this.whole, box: part = this.box, faces, pictures, of, far } = await reply.json();
      if (!cut) { // a picture of the studio or of gaip3 generate
        studio.reopen(faces);
        if (of > faces.length) toast(t("first_of", { n: faces.length, of }));
        return;
      }
      Object.assign(this, { file, cut, whole, box: part, far, seen: pictures[0], face: faces[0], before: studio.now });
      if (box) studio.choose(this.face); // the sliders stay
      else studio.adopt(this.face);
      say("");
    } catch (error) {
      if (!(error instanceof Refused)) say(t("failed", { why: error.message }));
      else say(error.status === 415 ? t("no_picture", { name: file.name }) : t("not_usable", { why: error.message }));
    }
  },
};

export const views = { many, neighbours, sweep, mix, retouch, models, photograph };
