// What the page asks of the service.

let key = sessionStorage.getItem("wembed-key");
let asking = null; // the dialog is opened once, however many requests wait for a key

export class Refused extends Error {}

export async function ask(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const found = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  if (found.status === 401) {
    asking ??= askForKey().finally(() => { asking = null; });
    await asking;
    return ask(path, body, signal);
  }
  const told = await found.json();
  if (!found.ok) throw new Refused(told.error?.message ?? `the service answered ${found.status}`);
  return told;
}

function askForKey() {
  const dialog = document.getElementById("ask"), input = document.getElementById("key");
  input.value = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => {
    key = input.value.trim();
    sessionStorage.setItem("wembed-key", key);
    done();
  }, { once: true }));
}

const MOST_KEPT = 4000;
const kept = new Map();

// Measures by id, those that are not here yet in one request.
export async function measures(ids) {
  const missing = [...new Set(ids)].filter((id) => !kept.has(id));
  if (missing.length) {
    const query = missing.map((id) => `id=${encodeURIComponent(id)}`).join("&");
    const found = ask(`/v1/measures?${query}`).then((told) => new Map(told.measures.map((one) => [one.id, one])));
    for (const id of missing) {
      kept.set(id, found.then((those) => those.get(id)));
      kept.get(id).catch(() => kept.delete(id)); // to be asked for again
    }
    while (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  }
  return Promise.all(ids.map((id) => kept.get(id)));
}
