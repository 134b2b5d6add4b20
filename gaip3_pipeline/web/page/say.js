// Messages: short ones that disappear, and problems that stay until they are solved.

const $ = (id) => document.getElementById(id);
let toastTimer;

export function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, 5000);
}

export function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}
