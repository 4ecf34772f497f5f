// Curve: a guess that is drawn by hand, by pointer or by keys, and what was measured over it. Knows numbers by how many
// were at once; knows no server. Both axes double from line to line, so as many times as at once is a straight line.

import {drawn} from "./dom.js";
import {three} from "./guess.js";

const LOW = .5, HIGH = 24; // of the axis; what lies outside stands at its edge
const HEIGHT = 264, LEFT = 84, TOP = 12, BOTTOM = 8, REACH = 18; // LEFT: of the table below too, whose columns go on
const KEYS = {ArrowUp: 2 ** .125, ArrowDown: 2 ** -.125, PageUp: 2, PageDown: .5};

const within = value => Math.min(HIGH, Math.max(LOW, value));

export class Curve {
  // guess: times by level, null before the first one; its first is 1 by definition. locked: it stays as it is.
  // onGuess: called when it changes.
  constructor(host, levels, onGuess) {
    Object.assign(this, {host, levels, onGuess, guess: null, measured: [], locked: false, _given: new Map()});
    this.drawing = drawn("svg", {role: "group", "aria-label": "Your guess as a curve: times the tokens a second, by how many are at once"});
    this.back = drawn("g", {"aria-hidden": "true"});
    this.front = drawn("g", {"aria-hidden": "true", class: "front"});
    this.handles = levels.slice(1).map((many, i) => this._handle(many, i + 1));
    this.drawing.append(this.back, ...this.handles, this.front);
    host.append(this.drawing);
    this._listen();
    new ResizeObserver(() => this.draw()).observe(host);
  }

  give(index, value) {
    // The guess at one level. Those that nobody gave lie on a line between their neighbours, or as high as the last one.
    if (this.locked) return;
    if (value === null) this._given.delete(index); else this._given.set(index, value);
    this.guess = this._given.size ? this.levels.map((_, i) => this._between(i)) : null;
    this.draw();
    this.onGuess();
  }

  put(measured) {
    // Times by level, as far as it is known.
    this.measured = measured;
    this.draw();
  }

  clear() {
    this._given.clear();
    Object.assign(this, {guess: null, measured: [], locked: false});
    this.draw();
  }

  _between(index) {
    const known = [[0, 1], ...this._given].sort((a, b) => a[0] - b[0]);
    const above = known.find(([at]) => at >= index), below = known.findLast(([at]) => at <= index);
    if (!above || above === below) return below[1];
    const share = (index - below[0]) / (above[0] - below[0]);
    return Number((below[1] * (above[1] / below[1]) ** share).toPrecision(2));
  }

  // --- drawing ----------------------------------------------------------------------------------------------------

  _x(index) { return LEFT + (this.width - LEFT) * (index + .5) / this.levels.length; }

  _y(value) { return TOP + (HEIGHT - TOP - BOTTOM) * Math.log(HIGH / within(value)) / Math.log(HIGH / LOW); }

  draw() {
    this.width = this.host.clientWidth;
    if (!this.width) return;
    this.drawing.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.back.replaceChildren(...this._grid(), this._line("ideal", this.levels), ...(this.guess ? [this._line("guessed", this.guess)] : []));
    this.front.replaceChildren(...this._found());
    this.handles.forEach((handle, i) => this._place(handle, i + 1));
  }

  _grid() {
    const across = [1, 2, 4, 8, 16].flatMap(times => [
      drawn("line", {x1: LEFT, x2: this.width, y1: this._y(times), y2: this._y(times)}),
      text(LEFT - 8, this._y(times) + 4, "end", `${times}×`),
    ]);
    const down = this.levels.map((_, i) => drawn("line", {x1: this._x(i), x2: this._x(i), y1: TOP, y2: HEIGHT - BOTTOM}));
    return [...across, ...down];
  }

  _line(name, values) {
    const points = values.map((value, i) => `${this._x(i)},${this._y(value)}`).join(" ");
    return drawn("polyline", {class: name, points});
  }

  _found() {
    const {measured, guess} = this;
    const gaps = guess ? measured.map((value, i) => drawn("line", {
      class: "gap", x1: this._x(i), x2: this._x(i), y1: this._y(value), y2: this._y(guess[i])})) : [];
    const dots = measured.map((value, i) => drawn("circle", {class: "dot", cx: this._x(i), cy: this._y(value), r: 5}));
    return [...gaps, this._line("measured", measured), ...dots];
  }

  _handle(many, index) {
    const handle = drawn("g", {class: "handle", role: "slider", tabindex: "0", "aria-orientation": "vertical",
      "aria-label": `Guess for ${many} at once`, "aria-valuemin": LOW, "aria-valuemax": HIGH});
    handle.append(drawn("circle", {class: "reach", r: REACH}), drawn("circle", {class: "grip", r: 7}));
    handle.addEventListener("keydown", event => this._key(event, index));
    return handle;
  }

  _place(handle, index) {
    const value = this.guess?.[index] ?? 1;
    handle.setAttribute("transform", `translate(${this._x(index)} ${this._y(value)})`);
    handle.setAttribute("aria-valuenow", within(value));
    handle.setAttribute("aria-valuetext", this.guess ? `${three(value)} times` : "no guess yet");
    handle.setAttribute("aria-disabled", String(this.locked));
    handle.classList.toggle("unset", !this.guess);
  }

  // --- hands ------------------------------------------------------------------------------------------------------

  _key(event, index) {
    const aside = {ArrowLeft: -1, ArrowRight: 1}[event.key], times = KEYS[event.key];
    if (aside) this.handles[index - 1 + aside]?.focus();
    else if (times) this.give(index, Number(within((this.guess?.[index] ?? 1) * times).toPrecision(2)));
    else return;
    event.preventDefault();
  }

  _listen() {
    // A mouse draws anywhere; a finger takes a point by its handle, so that it can still scroll the page.
    let drawing = false;
    const to = event => {
      const box = this.drawing.getBoundingClientRect(), step = (this.width - LEFT) / this.levels.length;
      const index = Math.min(this.levels.length - 1, Math.max(1, Math.floor((event.clientX - box.left - LEFT) / step)));
      const share = (event.clientY - box.top - TOP) / (HEIGHT - TOP - BOTTOM);
      this.give(index, Number(within(HIGH * (LOW / HIGH) ** share).toPrecision(2)));
    };
    this.drawing.addEventListener("pointerdown", event => {
      if (this.locked || (event.pointerType !== "mouse" && !event.target.closest(".handle"))) return;
      drawing = true;
      this.drawing.setPointerCapture(event.pointerId);
      to(event);
    });
    this.drawing.addEventListener("pointermove", event => { if (drawing) to(event); });
    for (const end of ["pointerup", "pointercancel"]) this.drawing.addEventListener(end, () => { drawing = false; });
  }
}

function text(x, y, anchor, content) {
  const made = drawn("text", {x, y, "text-anchor": anchor});
  made.textContent = content;
  return made;
}
