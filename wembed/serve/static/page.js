// The page: a map, a pad, what was chosen and what is near it.

import { ask, measures } from "./api.js";
import { PointMap } from "./map.js";
import { Pad } from "./pad.js";
import { caption, picture } from "./pictures.js";

const NEIGHBOURS = 10;
const UNUSUAL = 2.5;
const LEVEL = 0.9; // of intervals
const part = (id) => document.getElementById(id);
const digits = (value) => Number(value.toPrecision(3)).toString();

let about = null, map = null, pad = null;
let chosen = []; // ids; the second one is compared with the first
let comparing = false;
let turn = 0; // of what is asked last: answers to what was asked before come too late

function trouble(error) {
  const told = document.createElement("span");
  told.className = "trouble";
  told.textContent = error.message;
  return told;
}

async function begin() {
  about = await ask("/v1/info");
  const { cost } = about, name = `W_${cost.order}`;
  document.title = `wembed: ${about.measures.toLocaleString("en")} measures`;
  part("about").textContent = `${about.measures.toLocaleString("en")} measures, ${name} under the ${cost.metric} metric, learned by ${about.encoder}`;
  map = new PointMap(part("map"), part("tip"), choose);
  for (const method of about.maps) part("method").append(new Option(method === "pca" ? "principal axes" : method.toUpperCase(), method));
  part("method-choice").hidden = about.maps.length < 2;
  part("method").addEventListener("change", showMap);
  if (about.grid?.length === 2 || (!about.grid && about.point_dim === 2)) {
    part("pad-part").hidden = false;
    pad = new Pad(part("pad"), about, drawn);
    part("clear").addEventListener("click", () => {
      pad.clear();
      nothingNear();
    });
    part("file").addEventListener("change", () => part("file").files[0] && pad.open(part("file").files[0]));
  }
  part("compare").addEventListener("click", () => compareNext(!comparing));
  await showMap();
  document.body.dataset.ready = "yes";
}

async function showMap() {
  const method = part("method").value || "pca", slow = setTimeout(() => part("waiting").textContent = "Making the map…", 300);
  part("waiting").replaceChildren();
  try {
    const made = await ask(`/v1/map?method=${method}`);
    if (method !== (part("method").value || "pca")) return; // another one is asked for by now
    map.show(made);
    part("waiting").replaceChildren();
  } catch (error) {
    part("waiting").replaceChildren(trouble(error));
    return;
  } finally {
    clearTimeout(slow);
  }
  part("legend").replaceChildren(...map.legend().map(({ name, colour }) => {
    const row = document.createElement("li"), dot = document.createElement("i");
    dot.style.background = colour;
    row.append(dot, name);
    return row;
  }));
}

function compareNext(on) {
  comparing = on;
  part("compare").setAttribute("aria-pressed", `${on}`);
  part("compare").textContent = on ? "Now choose the other one" : "Compare with another";
}

async function choose(id) {
  const second = comparing && chosen.length > 0 && chosen[0] !== id;
  chosen = second ? [chosen[0], id] : [id];
  compareNext(false);
  part("between").replaceChildren();
  part("chosen-part").hidden = false;
  const mine = ++turn;
  let found;
  try {
    found = await measures(chosen);
    if (found.includes(null)) throw new Error("This measure is no longer there; reload the page for a new map.");
  } catch (error) {
    if (mine !== turn) return;
    part("chosen").replaceChildren(trouble(error));
    part("near-part").hidden = true;
    return;
  }
  if (mine !== turn) return;
  part("chosen-title").textContent = second ? "The distance between two" : "Chosen";
  part("chosen").replaceChildren(...found.map((measure) => {
    const figure = document.createElement("figure"), told = document.createElement("figcaption");
    told.textContent = caption(measure);
    figure.append(picture(measure), told);
    return figure;
  }));
  part("compare").hidden = false;
  if (second) {
    map.mark(chosen);
    await showDistance(chosen, part("between"), mine);
  } else await showNear({ id }, `Nearest to ${caption(found[0])}`, mine, id);
}

async function showDistance([a, b], place, mine) {
  const pair = { a: [{ id: a }], b: [{ id: b }] };
  try {
    const sure = about.highest_level >= LEVEL;
    const found = await ask("/v1/distance", sure ? { ...pair, interval: LEVEL } : pair);
    if (mine !== turn) return;
    const told = document.createElement("p");
    told.textContent = `learned: ${digits(found.predicted[0])}`;
    if (sure) told.textContent += `, corrected ${digits(found.estimate[0])}; nine times in ten the exact one lies between ${digits(found.lower[0])} and ${digits(found.upper[0])}`;
    place.replaceChildren(told, exactly(a, { id: b }, "Solve it exactly"));
    if (!about.decoder) return;
    const slider = await way(pair).catch(trouble);
    if (mine === turn) place.append(slider);
  } catch (error) {
    if (mine === turn) place.replaceChildren(trouble(error));
  }
}

// A slider along the way between two measures, and what is there.
const STOPS = 21;
async function way(pair) {
  const times = Array.from({ length: STOPS }, (_, k) => k / (STOPS - 1));
  const { measures: stops } = await ask("/v1/interpolate", { ...pair, t: times });
  const figure = document.createElement("figure"), name = document.createElement("label"), slider = document.createElement("input");
  const told = document.createElement("output"), frame = document.createElement("div"), shown = stops.map(picture);
  figure.className = "way";
  Object.assign(slider, { type: "range", min: 0, max: STOPS - 1, value: (STOPS - 1) / 2 });
  name.append("From one to the other, learned ", slider);
  const show = () => {
    told.textContent = `${Math.round(100 * times[slider.value])} % of the way`;
    slider.setAttribute("aria-valuetext", told.textContent);
    frame.replaceChildren(shown[slider.value]);
  };
  slider.addEventListener("input", show);
  figure.append(name, frame, told);
  show();
  return figure;
}

// A button that becomes the exact distance of a measure of the index and any other.
function exactly(id, other, name) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", async () => {
    const told = document.createElement("output");
    button.disabled = true;
    try {
      const found = await ask("/v1/distance", { a: [other], b: [{ id }], exact: true });
      told.textContent = `exact: ${digits(found.estimate[0])}`;
    } catch (error) {
      told.append(trouble(error));
    }
    button.replaceWith(told);
  });
  return button;
}

function nothingNear() {
  turn++;
  part("chosen-part").hidden = false;
  part("near-part").hidden = true;
  map.mark([]);
}

async function showNear(query, title, mine, itself) {
  try {
    const most = Math.min(NEIGHBOURS + (itself === undefined ? 0 : 1), about.measures);
    const found = await ask("/v1/neighbors", { measures: [query], k: most });
    const near = found.ids[0].map((id, k) => ({ id, far: found.distances[0][k] })).filter(({ id }) => id !== itself).slice(0, NEIGHBOURS);
    const known = await measures(near.map(({ id }) => id));
    if (mine !== turn) return;
    if (known.includes(null)) throw new Error("A neighbour was removed in the meantime; ask again.");
    part("near-part").hidden = false; // before what was chosen goes: the page is not to jump under a finger that draws
    part("chosen-part").hidden = itself === undefined;
    part("near-title").textContent = title;
    const strange = found.unusualness[0];
    part("unusual").textContent = strange >= UNUSUAL ? `This is unlike what the model learned from (unusualness ${digits(strange)}): distances may be further off.` : "";
    part("near").replaceChildren(...near.map(({ id, far }, k) => neighbour(known[k], far, query)));
    map.mark([...(itself === undefined ? [] : [itself]), ...near.map(({ id }) => id)]);
  } catch (error) {
    if (mine !== turn) return;
    part("near-part").hidden = false;
    part("near").replaceChildren(trouble(error));
  }
}

function neighbour(measure, far, query) {
  const row = document.createElement("li"), button = document.createElement("button"), told = document.createElement("output");
  const figure = document.createElement("figure"), name = document.createElement("figcaption");
  name.textContent = caption(measure);
  figure.append(picture(measure), name);
  button.type = "button";
  button.className = "picture";
  button.title = "Show its neighbours";
  button.append(figure);
  button.addEventListener("click", () => choose(measure.id));
  told.textContent = `learned: ${digits(far)}`;
  row.dataset.label = measure.label ?? "";
  row.append(button, told, exactly(measure.id, query, "exact?"));
  return row;
}

// While drawing: one request at a time, and then the latest drawing.
let asking = false, again = false;
async function drawn() {
  again = true;
  if (asking) return;
  asking = true;
  while (again) {
    again = false;
    const query = pad.measure();
    chosen = [];
    if (query) await showNear(query, "Nearest to your drawing", ++turn);
    else nothingNear();
  }
  asking = false;
}

begin().catch((error) => part("about").replaceChildren(trouble(error)));
