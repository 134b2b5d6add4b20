// Functions for faces that the studio and its views share: names, downloads, error messages.

import { answered, session } from "./server.js";
import { t } from "./i18n.js";
import { toast } from "./say.js";

// A short name of a face: its seed, with marks for mixtures, encoded latents and retouching.
export function name(face) {
  const of = (l) => "seed" in l ? `${l.seed}` : "share" in l ? `${of(l.first)}+` : "◆";
  return of(face.drawn ?? face.latents).replace(/\+{3,}/, "++…") + (face.fidelity ? ` ✦${face.fidelity}` : "");
}

export function failed(error) {
  toast(t("failed", { why: error.message }));
}

export async function download(faces, file) {
  try {
    const answer = await answered(await fetch("/api/studio/picture.png", {
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
