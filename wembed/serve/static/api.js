// What the page asks of the service.

let key = sessionStorage.getItem("wembed-key");
let asking = null; // the dialog is opened once, however many requests wait for a key

export class Refused extends Error {}

export async function ask(path, body, signal) {
  const used = key, headers = used ? { Authorization: `Bearer ${used}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  let found;
  try {
    found = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The service does not answer; is it still running?");
  }
  if (found.status === 401 || (found.status === 403 && used)) {
    if (key === used) {
      const wrong = found.status === 403 ? "That key may not ask; it takes one with the scope read." : "The service does not know that key.";
      asking ??= askForKey(used ? wrong : "").finally(() => { asking = null; });
    }
    if (asking && !await asking) throw new Refused("This service takes a key; reload the page to give one.");
    return ask(path, body, signal);
  }
  const text = await found.text();
  let told = {};
  try {
    told = JSON.parse(text, LARGE.test(text) ? whole : undefined);
  } catch {
    // what stands between here and the service may answer with something else
  }
  if (!found.ok) throw new Refused(told.error?.message ?? `the service answered ${found.status}`);
  return told;
}

// Whole numbers of so many digits would be rounded; as strings they are as good for the service.
const LARGE = /[[,:]-?[0-9]{16,19}[\],}]/;
const whole = (name, value, context) =>
  Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?[0-9]+$/.test(context?.source ?? "") ? context.source : value;

// Whether a key was given.
function askForKey(said) {
  const dialog = document.getElementById("ask"), input = document.getElementById("key");
  document.getElementById("wrong-key").textContent = said;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => {
    const given = dialog.returnValue === "given" ? input.value.trim() : "";
    key = given || null;
    if (key) sessionStorage.setItem("wembed-key", key);
    else sessionStorage.removeItem("wembed-key");
    done(Boolean(key));
  }, { once: true }));
}

const MOST_KEPT = 4000, STALE = 60_000; // milliseconds, after which a measure may be another one
const kept = new Map();

// Measures by id, those that are not here yet in one request. What is gone since is null.
export async function measures(ids) {
  const now = Date.now(), fresh = (id) => kept.has(id) && now - kept.get(id).since < STALE;
  const missing = [...new Set(ids)].filter((id) => !fresh(id));
  if (missing.length) {
    const found = some(missing);
    for (const id of missing) {
      const one = found.then((those) => those.get(id) ?? null);
      kept.delete(id);
      kept.set(id, { since: now, one });
      one.catch(() => kept.delete(id)); // to be asked for again
    }
  }
  const all = ids.map((id) => kept.get(id).one);
  while (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  return Promise.all(all);
}

async function some(ids) {
  try {
    const told = await ask(`/v1/measures?${ids.map((id) => `id=${encodeURIComponent(id)}`).join("&")}`);
    return new Map(told.measures.map((one) => [one.id, one]));
  } catch (error) {
    if (!/there is no measure with the id/.test(error.message)) throw error;
    if (ids.length === 1) return new Map();
    const half = ids.length >> 1; // one that is gone does not keep the others away
    const parts = await Promise.all([some(ids.slice(0, half)), some(ids.slice(half))]);
    return new Map(parts.flatMap((part) => [...part]));
  }
}
