// The map: a point for each measure, written into one image, so that a hundred thousand stay smooth without a GPU.

import { measures } from "./api.js";
import { caption, drawImage, picture } from "./pictures.js";

// Okabe and Ito (2008), told apart by the colour-blind too, and between them lighter ones.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#999999", "#b8a800", "#6a51a3", "#8c564b"];
const OTHERS = "#c8c8c8"; // labels that have no colour of their own
const THUMBNAILS = 120; // points in view, up to which each is its picture
const REACH = 14; // pixels from a point, within which it is meant

export class PointMap {
  constructor(canvas, tip, choose) {
    Object.assign(this, { canvas, tip, choose, ids: [], x: [], y: [], colours: [], rings: [], zoom: 1, centre: [0, 0] });
    this.thumbnails = new Map();
    this.pointers = new Map();
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel", "pointerleave"])
      canvas.addEventListener(kind, (event) => this[kind](event));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  show({ ids, x, y, labels }) {
    Object.assign(this, { ids, x, y });
    this.names = [...new Set(labels)].sort((a, b) => `${a}`.localeCompare(`${b}`, undefined, { numeric: true }));
    const often = new Map();
    for (const name of labels) often.set(name, (often.get(name) ?? 0) + 1);
    this.others = this.names.length > COLOURS.length ? this.names.length - COLOURS.length : 0;
    if (this.others) { // those that come most often have a colour of their own
      const kept = new Set([...often].sort((a, b) => b[1] - a[1]).slice(0, COLOURS.length).map(([name]) => name));
      this.names = this.names.filter((name) => kept.has(name));
    }
    const number = new Map(this.names.map((name, k) => [name, k]));
    this.colours = labels.map((name) => packed(number.has(name) ? COLOURS[number.get(name)] : OTHERS));
    const [left, right] = ends(x), [low, high] = ends(y);
    this.centre = [(left + right) / 2, (low + high) / 2];
    this.span = 1.15 * Math.max(right - left, high - low, 1e-9);
    this.zoom = 1;
    this.thumbnails.clear();
    this.draw();
  }

  legend() {
    if (!this.names.some((name) => name !== null)) return [];
    const rows = this.names.map((name, k) => ({ name: name ?? "no label", colour: COLOURS[k] }));
    return this.others ? [...rows, { name: `${this.others.toLocaleString("en")} other labels`, colour: OTHERS }] : rows;
  }

  mark(ids) {
    const wanted = new Set(ids);
    this.rings = this.ids.flatMap((id, k) => (wanted.has(id) ? [k] : []));
    this.draw();
  }

  draw() {
    this.due ??= requestAnimationFrame(() => {
      this.due = null;
      this.drawNow();
    });
  }

  drawNow() {
    const { canvas } = this, ratio = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer), scale = this.scale() * ratio;
    const many = this.ids.length, size = Math.round(ratio * (many > 20000 ? 2 : many > 5000 ? 3 : 4) * Math.min(2, Math.sqrt(this.zoom)));
    const seen = [];
    for (let k = 0; k < many; k++) {
      const across = Math.round(width / 2 + scale * (this.x[k] - this.centre[0]) - size / 2);
      const down = Math.round(height / 2 - scale * (this.y[k] - this.centre[1]) - size / 2);
      if (across < 0 || down < 0 || across + size > width || down + size > height) continue;
      if (seen.length <= THUMBNAILS) seen.push(k);
      for (let row = down; row < down + size; row++) pixels.fill(this.colours[k], row * width + across, row * width + across + size);
    }
    context.putImageData(image, 0, 0);
    if (seen.length <= THUMBNAILS && this.zoom > 1.5) this.pictures(context, seen, ratio);
    context.strokeStyle = getComputedStyle(canvas).color;
    context.lineWidth = 2 * ratio;
    this.rings.forEach((k, rank) => {
      const [across, down] = this.place(k);
      context.beginPath();
      context.arc(across * ratio, down * ratio, (rank ? 6 : 9) * ratio, 0, 2 * Math.PI);
      context.stroke();
    });
  }

  // Those that are here are drawn, the others asked for, and drawn when they come.
  pictures(context, seen, ratio) {
    const missing = seen.filter((k) => !this.thumbnails.has(this.ids[k]));
    if (missing.length) {
      for (const k of missing) this.thumbnails.set(this.ids[k], null);
      const wanted = missing.map((k) => this.ids[k]);
      measures(wanted).then((found) => {
        for (const one of found) if (one) this.thumbnails.set(one.id, thumbnail(one));
        this.draw();
      }, () => wanted.forEach((id) => this.thumbnails.delete(id)));
    }
    const side = 34 * ratio;
    context.imageSmoothingEnabled = false;
    for (const k of seen) {
      const drawn = this.thumbnails.get(this.ids[k]);
      if (!drawn) continue;
      const [across, down] = this.place(k).map((value) => value * ratio);
      context.drawImage(drawn, across - side / 2, down - side / 2, side, side);
      context.strokeStyle = unpacked(this.colours[k]);
      context.lineWidth = 2 * ratio;
      context.strokeRect(across - side / 2, down - side / 2, side, side);
    }
  }

  scale() {
    return (this.zoom * Math.min(this.canvas.clientWidth, this.canvas.clientHeight)) / this.span;
  }

  place(k) {
    const { canvas } = this, scale = this.scale();
    return [canvas.clientWidth / 2 + scale * (this.x[k] - this.centre[0]), canvas.clientHeight / 2 - scale * (this.y[k] - this.centre[1])];
  }

  nearest(across, down, reach) {
    let best = null, least = reach * reach;
    for (let k = 0; k < this.ids.length; k++) {
      const [x, y] = this.place(k), far = (x - across) ** 2 + (y - down) ** 2;
      if (far < least) [best, least] = [k, far];
    }
    return best;
  }

  move(across, down) {
    const scale = this.scale();
    this.centre = [this.centre[0] - across / scale, this.centre[1] + down / scale];
    this.draw();
  }

  zoomBy(factor, across = this.canvas.clientWidth / 2, down = this.canvas.clientHeight / 2) {
    const before = this.scale(), zoom = Math.min(2000, Math.max(0.5, this.zoom * factor));
    this.zoom = zoom;
    const shift = 1 / before - 1 / this.scale();
    this.centre = [this.centre[0] + (across - this.canvas.clientWidth / 2) * shift, this.centre[1] - (down - this.canvas.clientHeight / 2) * shift];
    this.draw();
  }

  wheel(event) {
    event.preventDefault();
    this.zoomBy(Math.exp(-event.deltaY / 300), event.offsetX, event.offsetY);
  }

  pointerdown(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    this.dragged = 0;
  }

  pointermove(event) {
    const before = this.pointers.get(event.pointerId), now = [event.offsetX, event.offsetY];
    if (!before) {
      if (event.pointerType === "mouse") this.hover(...now);
      return;
    }
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    if (others.length) {
      const far = (a) => Math.hypot(a[0] - others[0][0], a[1] - others[0][1]);
      this.zoomBy(far(now) / Math.max(1, far(before)), (now[0] + others[0][0]) / 2, (now[1] + others[0][1]) / 2);
      this.dragged = Infinity;
    } else {
      this.dragged += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (this.dragged > 4) this.move(now[0] - before[0], now[1] - before[1]);
    }
    this.pointers.set(event.pointerId, now);
  }

  pointerup(event) {
    if (!this.pointers.delete(event.pointerId) || this.dragged > 4) return;
    const meant = this.nearest(event.offsetX, event.offsetY, event.pointerType === "mouse" ? REACH : 2 * REACH);
    if (meant !== null) this.choose(this.ids[meant]);
  }

  pointercancel(event) {
    this.pointers.delete(event.pointerId);
  }

  pointerleave() {
    this.tip.hidden = true;
  }

  key(event) {
    const step = 60, moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) this.move(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoomBy(1.4);
    else if (event.key === "-") this.zoomBy(1 / 1.4);
    else if (event.key === "Enter") {
      const meant = this.nearest(this.canvas.clientWidth / 2, this.canvas.clientHeight / 2, Infinity);
      if (meant !== null) this.choose(this.ids[meant]);
    } else return;
    event.preventDefault();
  }

  async hover(across, down) {
    const meant = this.nearest(across, down, REACH);
    this.hovered = meant;
    if (meant === null) {
      this.tip.hidden = true;
      return;
    }
    const [found] = await measures([this.ids[meant]]).catch(() => [null]);
    if (this.hovered !== meant || !found) return;
    const told = document.createElement("span");
    told.textContent = caption(found);
    this.tip.replaceChildren(picture(found), told);
    this.tip.hidden = false;
    const left = Math.min(across + 16, this.canvas.clientWidth - this.tip.offsetWidth - 4);
    const top = Math.min(down + 16, this.canvas.clientHeight - this.tip.offsetHeight - 4);
    Object.assign(this.tip.style, { left: `${left}px`, top: `${top}px` });
  }
}

function thumbnail(measure) {
  if (measure.grid?.length === 2) {
    const canvas = document.createElement("canvas");
    drawImage(canvas, measure);
    return canvas;
  }
  const drawn = picture(measure);
  return drawn instanceof HTMLCanvasElement ? drawn : null;
}

function packed(hex) { // as an image has it, red first
  const value = parseInt(hex.slice(1), 16);
  return (0xff000000 | ((value & 0xff) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}

function unpacked(value) {
  return `rgb(${value & 0xff} ${(value >> 8) & 0xff} ${(value >> 16) & 0xff})`;
}

function ends(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}
