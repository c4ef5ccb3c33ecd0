// The pad: draw a measure, or drop an image; images are drawn as pixels, clouds as points.

const BRUSH = 1.15; // pixels of the image
const SIDE = 224;

export class Pad {
  constructor(canvas, { grid, box }, changed) {
    Object.assign(this, { canvas, grid, box, changed });
    canvas.width = grid ? grid[1] : SIDE;
    canvas.height = grid ? grid[0] : SIDE;
    canvas.style.aspectRatio = `${canvas.width} / ${canvas.height}`;
    this.clear();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.last = null;
      this.stroke(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) for (const one of event.getCoalescedEvents?.() ?? [event]) this.stroke(one);
    });
    canvas.addEventListener("dragover", (event) => {
      event.preventDefault();
      canvas.classList.add("over");
    });
    canvas.addEventListener("dragleave", () => canvas.classList.remove("over"));
    canvas.addEventListener("drop", (event) => {
      event.preventDefault();
      canvas.classList.remove("over");
      if (event.dataTransfer.files[0]) this.open(event.dataTransfer.files[0]);
    });
  }

  clear() {
    this.mass = new Float64Array(this.canvas.width * this.canvas.height);
    this.points = [];
    this.paint();
  }

  // As the service takes it; null while there is nothing.
  measure() {
    if (!this.grid) return this.points.length ? { points: this.points } : null;
    if (!this.mass.some((one) => one > 0)) return null;
    const [height, width] = this.grid;
    return { image: Array.from({ length: height }, (_, row) => [...this.mass.subarray(row * width, (row + 1) * width)]) };
  }

  stroke(event) {
    const { canvas } = this, frame = canvas.getBoundingClientRect();
    const now = [((event.clientX - frame.left) / frame.width) * canvas.width, ((event.clientY - frame.top) / frame.height) * canvas.height];
    const before = this.last ?? now, steps = Math.max(1, Math.ceil(2 * Math.hypot(now[0] - before[0], now[1] - before[1])));
    if (this.grid) for (let k = 1; k <= steps; k++) this.dab(before[0] + ((now[0] - before[0]) * k) / steps, before[1] + ((now[1] - before[1]) * k) / steps);
    else {
      const [low, high] = this.box;
      this.points.push([low[0] + (now[0] / SIDE) * (high[0] - low[0]), high[1] - (now[1] / SIDE) * (high[1] - low[1])]);
    }
    this.last = now;
    this.paint();
    this.changed();
  }

  dab(across, down) {
    const { width, height } = this.canvas, reach = Math.ceil(BRUSH * 2);
    for (let row = Math.max(0, Math.floor(down) - reach); row < Math.min(height, Math.floor(down) + reach + 1); row++)
      for (let column = Math.max(0, Math.floor(across) - reach); column < Math.min(width, Math.floor(across) + reach + 1); column++) {
        const far = Math.hypot(column + 0.5 - across, row + 0.5 - down), ink = Math.min(1, Math.max(0, BRUSH + 0.5 - far));
        const place = row * width + column;
        this.mass[place] = Math.max(this.mass[place], ink);
      }
  }

  paint() {
    const { canvas } = this, context = canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (this.grid) {
      const image = context.getImageData(0, 0, canvas.width, canvas.height);
      this.mass.forEach((one, k) => image.data.fill(Math.round(255 * one), 4 * k, 4 * k + 3));
      context.putImageData(image, 0, 0);
      return;
    }
    const [low, high] = this.box;
    context.fillStyle = "#fff";
    for (const [x, y] of this.points) {
      context.beginPath();
      context.arc(((x - low[0]) / (high[0] - low[0])) * SIDE, ((high[1] - y) / (high[1] - low[1])) * SIDE, 3, 0, 2 * Math.PI);
      context.fill();
    }
  }

  // An image is fitted into the frame; one that is dark on light is inverted, as its ink is meant.
  async open(file) {
    const picture = await createImageBitmap(file), { width, height } = this.canvas;
    const drawn = new OffscreenCanvas(width, height), context = drawn.getContext("2d");
    const scale = Math.min(width / picture.width, height / picture.height);
    const size = [picture.width * scale, picture.height * scale];
    context.drawImage(picture, (width - size[0]) / 2, (height - size[1]) / 2, ...size);
    const { data } = context.getImageData(0, 0, width, height), grey = new Float64Array(width * height);
    for (let k = 0; k < grey.length; k++)
      grey[k] = ((0.299 * data[4 * k] + 0.587 * data[4 * k + 1] + 0.114 * data[4 * k + 2]) * data[4 * k + 3]) / 255 ** 2;
    const edge = [...grey.keys()].filter((k) => data[4 * k + 3] && (k < width || k >= grey.length - width || k % width === 0));
    const light = edge.length > 0 && edge.reduce((sum, k) => sum + grey[k], 0) / edge.length > 0.5;
    const ink = grey.map((one, k) => (data[4 * k + 3] ? (light ? 1 - one : one) : 0)).map((one) => (one > 0.05 ? one : 0));
    this.clear();
    if (this.grid) this.mass = ink;
    else {
      const [low, high] = this.box;
      ink.forEach((one, k) => {
        const row = Math.floor(k / width), column = k % width;
        if (one > 0.5 && row % 4 === 0 && column % 4 === 0)
          this.points.push([low[0] + (column / width) * (high[0] - low[0]), high[1] - (row / height) * (high[1] - low[1])]);
      });
    }
    this.paint();
    this.changed();
  }
}
