// Messages: short ones that disappear, problems that stay until they are solved, the title of the browser's tab, notifications.

const $ = (id) => document.getElementById(id);
let toastTimer;

export function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, 5000);
}

// Whether the server does not answer.
export function gone(is) {
  $("gone").hidden = !is;
}

export function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

let page = "", state = "";

// The title of the browser's tab, and before it what is worth knowing while another tab is open, such as a progress.
export function title(text) {
  page = text;
  document.title = state + page;
}

export function stateInTitle(text) {
  state = text && `${text} · `;
  document.title = state + page;
}

// Ask, at a click, whether notifications may be shown; browsers have them only on this machine and over HTTPS.
export function mayNotify() {
  if (window.Notification?.permission === "default") Notification.requestPermission();
}

export function notify(text) {
  if (window.Notification?.permission !== "granted" || document.hasFocus()) return;
  try { new Notification(text); } catch { /* browsers of phones have them for service workers only */ }
}
