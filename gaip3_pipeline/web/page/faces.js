// Functions for faces that the studio and its views share: names, downloads, copies, error messages.

import { Gone, answered, reach, session } from "./server.js";
import { t } from "./i18n.js";
import { toast } from "./say.js";

// The seeds in latents, each once; null stands for numbers, as those of a photograph.
function sources(latents) {
  if ("share" in latents) return [...new Set([...sources(latents.first), ...sources(latents.second)])];
  return ["seed" in latents ? latents.seed : null];
}

// The name of a face in words: its seed, what was mixed, whether it was retouched.
export function name(face) {
  const from = face.drawn ?? face.latents, all = sources(from).map((seed) => (seed === null ? t("photograph_face") : t("seed_face", { seed })));
  const [first, second] = all, more = all.length - 2;
  const said = "share" in from && second ? t(more > 0 ? "mixed_more" : "mixed", { first, second, more }) : first;
  return face.fidelity ? t("retouched_face", { said, fidelity: face.fidelity }) : said;
}

// The name of a face's PNG.
export function fileOf(face) {
  const from = face.drawn ?? face.latents, [first] = sources(from);
  return `face-${first ?? "photograph"}${"share" in from ? "-mixed" : ""}${face.fidelity ? "-retouched" : ""}.png`;
}

export function failed(error) {
  if (!(error instanceof Gone)) toast(t("failed", { why: error.message }));
}

export async function download(faces, file) {
  try {
    const answer = await answered(await reach("/api/studio/picture.png", {
      method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ tab: session, pane: `download${performance.now()}`, faces }),
    }));
    const a = document.createElement("a");
    Object.assign(a, { href: URL.createObjectURL(await answer.blob()), download: file });
    a.click();
    setTimeout(() => URL.revokeObjectURL(a.href), 60_000);
  } catch (error) {
    failed(error);
  }
}

const later = {};
// Call `act` when there was no further call with `key` for 350 ms.
export function settled(key, act) {
  clearTimeout(later[key]);
  later[key] = setTimeout(act, 350);
}

// Copy `text`; where the browser forbids it, as on pages of other machines without encryption, show it to be copied by hand.
export async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    toast(done);
  } catch {
    prompt(t("copy_this"), text);
  }
}
