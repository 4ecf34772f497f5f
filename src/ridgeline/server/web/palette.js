// Palette: what every part of a request's time and every cell of the pipeline looks like. Knows names and patterns.
// Colour never stands alone: a letter and, for what is no progress, a pattern say the same.

import {colour, drawn} from "./dom.js";

// name -> [colour, pattern, letter, what it is]
export const PARTS = {
  received: ["front", "solid", "", "the request's body was read"],
  tokenised: ["front", "solid", "", "text to tokens"],
  window: ["window", "dots", "w", "kept back by the batching policy"],
  queued: ["queued", "hollow", "q", "waiting for a seat"],
  prefill: ["prefill", "solid", "P", "computing the prompt"],
  others: ["stalled", "stripes", "s", "seated, but the step was for others"],
  decode: ["decode", "solid", "D", "making tokens"],
  preempted: ["preempted", "hollow", "X", "waiting again, its blocks were taken"],
  recomputed: ["recomputed", "stripes", "R", "computing again what was lost"],
  delivered: ["front", "solid", "", "on the way from engine to front"],
  detokenised: ["front", "solid", "", "tokens to text"],
  socket: ["front", "solid", "", "waiting for the client to read"],
};
export const CELLS = {
  queued: PARTS.queued, window: PARTS.window, prefill: PARTS.prefill, decode: PARTS.decode,
  stalled: ["stalled", "stripes", "·", "seated, not in the step"],
  preempted: PARTS.preempted, recomputed: PARTS.recomputed,
  retired: ["decode", "ended", "✓", "its last step"],
};

const LETTERS = {window: "w", slots: "s", blocks: "b", budget: "t", order: "o"}; // t: of tokens, which the budget counts

// A seat's cell in a step that it had no part in, by the step's stall.
const STALLED = Object.fromEntries(["", ...Object.keys(LETTERS)].map(name =>
  [name, ["stalled", "stripes", LETTERS[name] ?? "·", "seated, not in the step"]]));
export const stall = name => STALLED[name] ?? STALLED[""];

export function paints() {
  // Every cell's colour as it is now, light or dark.
  const names = new Set(Object.values(CELLS).map(([name]) => name));
  for (const name of ["on-cell", "ink", "soft", "grid", "line", "accent", "field", "card", "series-1", "series-3"]) names.add(name);
  return Object.fromEntries([...names].map(name => [name, colour(name)]));
}

export function cell(context, x, y, size, [name, pattern, letter], paint, phase = null) {
  // One cell on a canvas. phase: what a cell that ends a request was otherwise.
  const fill = paint[phase ?? name], hollow = pattern === "hollow" || pattern === "dots", inner = size - 2;
  context.save();
  context.beginPath();
  context.roundRect(x + 1, y + 1, inner, inner, 3);
  if (hollow) {
    context.strokeStyle = fill;
    context.lineWidth = 1.25;
    context.setLineDash(pattern === "dots" ? [1.5, 2] : [3, 2]);
    context.stroke();
  } else {
    context.fillStyle = fill;
    context.fill();
  }
  if (pattern === "stripes") {
    context.clip();
    context.strokeStyle = paint["on-cell"];
    context.globalAlpha = .38;
    context.lineWidth = 1.5;
    context.beginPath();
    for (let offset = -size; offset < size; offset += 5) {
      context.moveTo(x + offset, y + size);
      context.lineTo(x + offset + size, y);
    }
    context.stroke();
    context.globalAlpha = 1;
  }
  context.restore();
  if (size < 13) return;
  context.fillStyle = hollow ? fill : paint["on-cell"];
  context.font = `${pattern === "ended" ? 700 : 600} ${Math.round(size * .58)}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(letter, x + size / 2, y + size / 2 + .5);
}

export function swatch(look) {
  // A cell for a legend: an image of what the diagram draws.
  const scale = 2, size = 18, made = document.createElement("canvas");
  made.width = made.height = size * scale;
  made.className = "swatch";
  const paint = () => {
    const context = made.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, size, size);
    cell(context, 0, 0, size, look, {...paints(), front: colour("front")});
  };
  paint();
  made.repaint = paint;
  return made;
}

export function bar(x, width, [name, pattern]) {
  // A span of a waterfall, in an SVG that is 1000 wide and 16 high.
  const hollow = pattern === "hollow" || pattern === "dots";
  const made = drawn("rect", {x, y: 1.5, width: Math.max(width, 1.5), height: 13, rx: 1.5});
  made.style.fill = `var(--${name})`;
  if (hollow) made.style.fillOpacity = ".45";
  if (pattern === "stripes") made.style.fillOpacity = ".8";
  return made;
}
