// The state of the studio as a link, and as a command. A link holds seeds and settings, no pictures: opening it draws the faces again.

const SLIDERS = ["detail", "temperature", "guidance"];

// What a link holds of latents: null if they contain numbers, as those of a photograph do.
function short(latents) {
  if ("seed" in latents) return latents;
  if ("encoded" in latents) return null;
  const first = short(latents.first), second = short(latents.second);
  return first && second && { first, second, share: latents.share };
}

// The query of a link to `studio`. A chosen face that is not one of the seeds of the list is added as a recipe, without its sliders. Of a
// photograph's face only the sliders remain.
export function query({ about, set, fidelity, view, model, chosen, faces, count, seed }) {
  const asked = new URLSearchParams({ seed, faces: count });
  if (view !== "many") asked.set("view", view);
  const { latents, drawn, fidelity: strength, ...rest } = chosen, from = short(drawn ?? latents);
  if (faces.includes(chosen) && "seed" in latents && latents.seed >= seed && latents.seed < seed + count) asked.set("face", latents.seed);
  else if (from) asked.set("recipe", JSON.stringify({ ...rest, latents: from }));
  about.attributes.forEach(({ name }, i) => { if (set.values[i] !== null) asked.set(name, set.values[i]); });
  for (const name of SLIDERS) if (set[name] !== null) asked.set(name, set[name]);
  if (fidelity || (drawn && strength)) asked.set("fidelity", fidelity || strength);
  if (model) asked.set("model", model.slice(0, 12));
  return asked.toString();
}

// The state in `text`, the query of a link. What is missing or damaged is left out; the server checks the recipe.
export function parse(text, { attributes, seed }) {
  const asked = new URLSearchParams(text);
  const number = (name, most) => {
    const value = asked.get(name), n = Number(value);
    return value && Number.isFinite(n) ? Math.min(Math.max(n, 0), most) : null;
  };
  let recipe = null;
  try { recipe = JSON.parse(asked.get("recipe")); } catch { /* a damaged link */ }
  return {
    seed: number("seed", 2 ** 53 - 1e6) ?? seed, count: asked.get("faces"), view: asked.get("view"), face: number("face", 2 ** 53), recipe,
    values: attributes.map(({ name }) => number(name, 1)), detail: number("detail", 1), temperature: number("temperature", 2),
    guidance: number("guidance", 10), fidelity: number("fidelity", 1) ?? 0, model: asked.get("model"),
  };
}

// The command that draws `face`, or, with `n`, as many faces of the list from `face` on with the moved sliders, and writes `file`. A face
// that no seed gives needs its PNG.
export function commandOf({ about, set }, face, file, n = 1) {
  if (!("seed" in face.latents) || face.prior !== "aggregate") return `${about.generate} --from ${file} --out again.png`;
  const values = n === 1 ? face.values : set.values, rest = SLIDERS.map((name) => [name, face[name]]);
  const given = [...about.attributes.map(({ name }, i) => [name.replace("_", "-"), values[i]]), ...rest].filter(([, value]) => value !== null);
  return [about.generate, `--n ${n} --seed ${face.latents.seed}`, ...given.map(([name, value]) => `--${name} ${value}`), `--out ${file}`].join(" ");
}
