// Pipeline: a tape as a diagram: requests down, steps across, tokens a step and bubbles of padding above.
// Only what can be seen is drawn, so a long tape costs no more than a short one, and only requests that have a cell in
// the columns in sight have a row, so nobody looks for them. Knows cells; knows no server.

import {element} from "./dom.js";
import {CELLS, cell as draw, paints, stall} from "./palette.js";

const SIZE = 20, RULER = 18, IPC = 52, PADDING = 20, HEAD = RULER + IPC + PADDING + 6;
const MOST_ROWS = 64, MOST_COLUMNS = 300; // drawn at once, whatever the window

const gutter = width => width < 520 ? 64 : 132;

export class Pipeline {
  // at: the playhead, the newest column shown. rows: the requests in sight. chosen: {life, column}, or null.
  // onChoose: called with the cell there.
  constructor(host, onChoose) {
    Object.assign(this, {host, onChoose, tape: null, at: 0, rows: [], chosen: null, paint: paints(), drawn: {rows: 0, columns: 0}});
    this.canvas = element("canvas", {"aria-hidden": "true"});
    this.room = element("div", {class: "room"});
    host.append(this.room, this.canvas);
    host.addEventListener("scroll", () => this.later());
    host.addEventListener("pointermove", event => this._pointed(event));
    host.addEventListener("keydown", event => this._key(event));
    new ResizeObserver(() => this._resized()).observe(host);
    document.addEventListener("themechange", () => { this.paint = paints(); this.later(); });
  }

  show(tape, at) {
    const kept = this.chosen && tape.lives.find(life => life.key === this.chosen.life.key);
    const column = this.chosen && this.tape ? tape.steps.serial.indexOf(this.tape.steps.serial[this.chosen.column]) : -1;
    this.tape = tape;
    this.chosen = kept && column >= 0 ? {life: kept, column} : null;
    this._resized();
    this.to(at);
  }

  to(at) {
    // Move the playhead, and the view after it.
    this.at = at;
    const {host} = this, across = gutter(host.clientWidth) + (at + 1) * SIZE - host.clientWidth + SIZE;
    const left = at * SIZE;
    if (across > host.scrollLeft || left < host.scrollLeft) host.scrollLeft = Math.max(0, Math.ceil(across / SIZE) * SIZE);
    this.later();
  }

  later() {
    this._frame ??= requestAnimationFrame(() => { this._frame = null; this.draw(); });
  }

  _resized() {
    const {host, canvas, room, tape} = this, scale = devicePixelRatio || 1;
    const width = host.clientWidth, height = host.clientHeight;
    if (!width || !height) return;
    const moved = canvas.clientWidth !== width;
    Object.assign(canvas, {width: Math.round(width * scale), height: Math.round(height * scale)});
    Object.assign(canvas.style, {width: `${width}px`, height: `${height}px`});
    room.style.width = `${tape ? gutter(width) + (tape.length + 1) * SIZE : 1}px`;
    if (tape && moved) this.to(this.at); // the playhead stays in sight
    this.draw();
  }

  _seen() {
    const {host, tape, at, room} = this, from = Math.floor(host.scrollLeft / SIZE);
    const columns = Math.min(MOST_COLUMNS, Math.ceil((host.clientWidth - gutter(host.clientWidth)) / SIZE) + 1);
    const to = Math.min(tape.length, from + columns), end = Math.min(to - 1, at);
    this.rows = tape.lives.filter(life => life.first <= end && life.last >= from);
    room.style.height = `${HEAD + this.rows.length * SIZE + 4}px`;
    const top = Math.floor(host.scrollTop / SIZE), rows = Math.min(MOST_ROWS, Math.ceil((host.clientHeight - HEAD) / SIZE) + 1);
    return {from, to, top, bottom: Math.min(this.rows.length, top + rows)};
  }

  draw() {
    const {host, canvas, tape} = this, scale = devicePixelRatio || 1, context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, host.clientWidth, host.clientHeight);
    if (!tape) return;
    const seen = this._seen(), left = gutter(host.clientWidth);
    this.drawn = {rows: seen.bottom - seen.top, columns: seen.to - seen.from};
    const x = column => left + column * SIZE - host.scrollLeft, y = row => HEAD + row * SIZE - host.scrollTop;
    this._clipped(context, [left, HEAD], () => this._cells(context, seen, x, y));
    this._clipped(context, [left, 0, HEAD], () => this._head(context, seen, x));
    this._clipped(context, [0, HEAD, Infinity, left - 6], () => this._names(context, seen, y));
    this._labels(context, left);
  }

  _clipped(context, [left, top, bottom = Infinity, right = Infinity], paint) {
    context.save();
    context.beginPath();
    context.rect(left, top, Math.min(right, this.host.clientWidth) - left, Math.min(bottom, this.host.clientHeight) - top);
    context.clip();
    paint();
    context.restore();
  }

  _cells(context, seen, x, y) {
    const {tape, paint} = this;
    context.fillStyle = paint.grid;
    for (let column = seen.from; column < seen.to; column += 1) {
      if (tape.steps.serial[column] % 10 === 0) context.fillRect(x(column), HEAD, 1, this.host.clientHeight);
    }
    for (let row = seen.top; row < seen.bottom; row += 1) {
      const life = this.rows[row], end = Math.min(seen.to - 1, life.last, this.at);
      for (let column = Math.max(seen.from, life.first); column <= end; column += 1) {
        const here = tape.cell(life, column);
        if (here) draw(context, x(column), y(row), SIZE, here.state === "stalled" ? stall(here.stall) : CELLS[here.state], paint, here.state === "retired" ? here.phase ?? "queued" : null);
      }
    }
    context.fillStyle = paint.accent;
    if (tape.length) context.fillRect(x(this.at + 1) - .5, HEAD, 1.5, this.host.clientHeight);
    const row = this.chosen ? this.rows.indexOf(this.chosen.life) : -1;
    if (row < 0) return;
    context.strokeStyle = paint.ink;
    context.lineWidth = 2;
    context.strokeRect(x(this.chosen.column) + 1, y(row) + 1, SIZE - 2, SIZE - 2);
  }

  _head(context, seen, x) {
    const {tape, paint} = this, floor = RULER + IPC, end = Math.min(seen.to - 1, this.at);
    context.fillStyle = paint.field;
    context.fillRect(0, 0, this.host.clientWidth, HEAD);
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "left";
    context.textBaseline = "middle";
    for (let column = seen.from; column < seen.to; column += 1) {
      if (tape.steps.serial[column] % 10) continue;
      context.fillStyle = paint.grid;
      context.fillRect(x(column), 0, 1, HEAD);
      context.fillStyle = paint.soft;
      context.fillText(String(tape.steps.serial[column]), x(column) + 4, RULER / 2);
    }
    context.fillStyle = paint.line;
    context.fillRect(0, floor, this.host.clientWidth, 1);
    context.fillRect(0, HEAD - 1, this.host.clientWidth, 1);
    context.strokeStyle = paint["series-1"];
    context.lineWidth = 1.8;
    context.beginPath();
    for (let column = Math.max(0, seen.from - 1); column <= end; column += 1) {
      const height = floor - (IPC - 6) * tape.ipc(column) / tape.mostTokens;
      context.lineTo(x(column), height);
      context.lineTo(x(column) + SIZE, height);
    }
    context.stroke();
    context.fillStyle = paint["series-3"];
    for (let column = seen.from; column <= end; column += 1) {
      const height = PADDING * tape.bubbles(column);
      context.fillRect(x(column) + 3, floor + 2, SIZE - 6, height);
    }
  }

  _names(context, seen, y) {
    const {rows, paint} = this, narrow = this.host.clientWidth < 520;
    context.font = "12px ui-monospace, Menlo, Consolas, monospace";
    context.textAlign = "left";
    context.textBaseline = "middle";
    for (let row = seen.top; row < seen.bottom; row += 1) {
      const life = rows[row];
      context.fillStyle = this.chosen?.life === life ? paint.ink : paint.soft;
      context.fillText(short(life.name, narrow ? 6 : 15), 8, y(row) + SIZE / 2);
    }
  }

  _labels(context, left) {
    const {paint, tape} = this, narrow = this.host.clientWidth < 520;
    context.fillStyle = paint.field;
    context.fillRect(0, 0, left, HEAD);
    context.fillStyle = paint.line;
    context.fillRect(left - 1, 0, 1, this.host.clientHeight);
    context.fillRect(0, HEAD - 1, left, 1);
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.fillStyle = paint.soft;
    context.fillText("step", 8, RULER / 2);
    context.fillText(narrow ? "tokens" : "tokens a step", 8, RULER + 22);
    context.fillText(narrow ? "padding" : "padding", 8, RULER + IPC + PADDING / 2 + 1);
    context.textAlign = "right";
    if (!narrow) context.fillText(String(tape.mostTokens), left - 6, RULER + 6);
  }

  _pointed(event) {
    const {host, tape} = this, box = host.getBoundingClientRect();
    const across = event.clientX - box.left - gutter(host.clientWidth), down = event.clientY - box.top - HEAD;
    if (!tape || across < 0 || down < 0) return;
    this._choose(Math.floor((down + host.scrollTop) / SIZE), Math.floor((across + host.scrollLeft) / SIZE));
  }

  _choose(row, column) {
    const {tape} = this, life = this.rows[row];
    if (!life || column < 0 || column > this.at) return;
    if (this.chosen?.life === life && this.chosen.column === column) return;
    this.chosen = {life, column};
    this.onChoose(life, column, tape.cell(life, column));
    this.later();
  }

  _key(event) {
    const step = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0]}[event.key];
    if (!step || !this.tape) return;
    event.preventDefault();
    const {chosen, rows, at} = this, here = chosen ? rows.indexOf(chosen.life) : -1;
    if (here < 0) this._choose(Math.max(0, rows.findIndex(life => life.rows.has(at))), at);
    else this._choose(here + step[0], Math.min(at, chosen.column + step[1]));
    if (this.chosen) this._reveal(this.chosen);
  }

  _reveal({life, column}) {
    const {host} = this, across = column * SIZE;
    const wide = host.clientWidth - gutter(host.clientWidth) - SIZE, high = host.clientHeight - HEAD - SIZE;
    if (across < host.scrollLeft) host.scrollLeft = across; else if (across > host.scrollLeft + wide) host.scrollLeft = across - wide;
    this.draw();
    const down = this.rows.indexOf(life) * SIZE;
    if (down < host.scrollTop) host.scrollTop = down; else if (down > host.scrollTop + high) host.scrollTop = down - high;
  }
}

function short(name, most) {
  // Ids differ at their ends.
  return name.length <= most ? name : `…${name.slice(1 - most)}`;
}
