// Measures as pictures: images as images, clouds as dots as large as their weights, documents as words.

const SIDE = 96;

export function caption(measure) {
  return measure.label === null || measure.label === undefined ? `${measure.id}` : `${measure.label} (${measure.id})`;
}

// An element that shows a measure.
export function picture(measure) {
  const words = wordsOf(measure);
  if (words) {
    const shown = document.createElement("div");
    shown.className = "words";
    shown.textContent = words;
    shown.title = words; // of many, those that have no room
    return shown;
  }
  const canvas = document.createElement("canvas");
  if (measure.grid?.length === 2) drawImage(canvas, measure);
  else drawCloud(canvas, measure.points, measure.weights);
  return canvas;
}

function wordsOf(measure) {
  const told = measure.payload?.words ?? measure.payload?.text;
  return Array.isArray(told) ? told.join(" ") : typeof told === "string" ? told : null;
}

// A canvas with a pixel for each of the image, the brightest white.
export function drawImage(canvas, measure) {
  const [height, width] = measure.grid;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  const most = measure.weights.reduce((a, b) => Math.max(a, b), 0) || 1;
  for (let k = 3; k < image.data.length; k += 4) image.data[k] = 255;
  measure.points.forEach(([row, column], k) => {
    const grey = Math.round((255 * measure.weights[k]) / most), place = 4 * (row * width + column);
    image.data.fill(grey, place, place + 3);
  });
  context.putImageData(image, 0, 0);
}

// Along the first two axes, the second one upwards; on a line, stems.
export function drawCloud(canvas, points, weights) {
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  const x = points.map((point) => point[0]), y = points.map((point) => point[1] ?? 0);
  const [left, right] = ends(x), [low, high] = ends(y);
  const scale = (SIDE - 14) / Math.max(right - left, high - low, 1e-12);
  const most = weights.reduce((a, b) => Math.max(a, b), 0) || 1;
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--mark");
  context.globalAlpha = 0.7;
  points.forEach((_, k) => {
    const across = SIDE / 2 + scale * (x[k] - (left + right) / 2), up = SIDE / 2 - scale * (y[k] - (low + high) / 2);
    if (points[k].length === 1) context.fillRect(across - 1, SIDE - 7 - (weights[k] / most) * (SIDE - 14), 2, (weights[k] / most) * (SIDE - 14));
    else {
      context.beginPath();
      context.arc(across, up, Math.max(0.8, 4 * Math.sqrt(weights[k] / most)), 0, 2 * Math.PI);
      context.fill();
    }
  });
}

function ends(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}
