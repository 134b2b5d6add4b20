// What the address says after "#": the tab, and what the label tab shows, such as #label?attribute=mouth&order=next. A reload, a bookmark
// and a link to somebody else lead to the same place.

const TABS = ["label", "refresh", "studio"];

export function address() {
  const [tab, query = ""] = location.hash.slice(1).split("?");
  return { tab: TABS.includes(tab) ? tab : "label", query, place: Object.fromEntries(new URLSearchParams(query)) };
}

const REST = 350; // ms between two changes of the address, whose number browsers limit
let place = {}, resting = false, again = false;

// Write the place on the label tab into its address; entries that are empty are left out.
export function keep(now) {
  place = now;
  again = resting;
  if (resting || address().tab !== "label") return;
  const query = new URLSearchParams(Object.entries(place).filter(([, value]) => value));
  history.replaceState(null, "", `#label?${query}`);
  resting = true;
  setTimeout(() => { resting = false; if (again) keep(place); }, REST);
}
