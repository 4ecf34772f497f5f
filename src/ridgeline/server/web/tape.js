// Tape: a recording as requests down and steps across. Knows the format and what each cell is; draws nothing.

const KIND = "ridgeline-recording", VERSION = 1;
const STEPS = ["serial", "launched_us", "collected_us", "rows", "tokens", "positions", "padding", "waiting", "kv_blocks", "horizon", "stall"];

function check(data) {
  // Raises an Error in words for a person; a file may be anything.
  if (data === null || typeof data !== "object" || data.kind !== KIND) throw new Error("this is not a recording of Ridgeline's");
  if (data.version !== VERSION) throw new Error(`the recording has version ${data.version}; this page reads version ${VERSION}`);
  const tables = {steps: STEPS, rows: ["key", "start", "count", "made", "phase"], lives: ["key", "at_us", "serial", "what"]};
  for (const [table, columns] of Object.entries(tables)) {
    const length = data[table]?.[columns[0]]?.length;
    for (const column of columns) {
      const values = data[table]?.[column];
      if (!Array.isArray(values) || values.length !== length) throw new Error(`the recording is damaged: ${table}.${column}`);
      if (!values.every(Number.isFinite)) throw new Error(`the recording is damaged: ${table}.${column} has more than numbers`);
    }
  }
  const rows = data.steps.rows.reduce((sum, count) => sum + count, 0);
  if (rows !== data.rows.key.length) throw new Error("the recording is damaged: its steps and rows do not agree");
}

class Life {
  // One request. rows: column -> its row in the recording. turns: [[from this column on, state]], in order.
  constructor(key, name) {
    Object.assign(this, {key, name, rows: new Map(), turns: [], first: Infinity, last: -1, ended: null});
  }

  span(column) {
    this.first = Math.min(this.first, column);
    this.last = Math.max(this.last, column);
  }

  state(column) {
    let state = null;
    for (const [from, next] of this.turns) { if (from > column) break; state = next; }
    return state;
  }
}

const STATES = {arrived: "waiting", admitted: "seated", first_token: null, preempted: "preempted", ended: "over"};

export class Tape {
  constructor(data) {
    check(data);
    Object.assign(this, {data, steps: data.steps, length: data.steps.serial.length});
    this._lives = new Map();
    this._read();
    this.lives = [...this._lives.values()].filter(life => life.first < this.length)
      .sort((a, b) => a.first - b.first || a.key - b.key);
    this.mostTokens = this.steps.tokens.reduce((most, tokens) => Math.max(most, tokens), 1);
  }

  cell(life, column) {
    // What stands there: null, or its state (a name of the palette's CELLS), its row, and why it had no part.
    if (column < life.first || column > life.last) return null;
    const {data, steps} = this, row = life.rows.get(column), stall = data.stalls[steps.stall[column]];
    if (row !== undefined) {
      const phase = data.phases[data.rows.phase[row]];
      return {state: column === life.ended ? "retired" : phase, phase, start: data.rows.start[row], count: data.rows.count[row], made: data.rows.made[row]};
    }
    const state = life.state(column);
    if (state === "waiting") return stall === "window" ? {state: "window", stall} : {state: "queued", stall};
    if (state === "preempted") return {state, stall};
    return {state: "stalled", stall};
  }

  ipc(column) { return this.steps.tokens[column]; }

  bubbles(column) {
    // The share of a step's positions that is padding.
    return this.steps.positions[column] ? this.steps.padding[column] / this.steps.positions[column] : 0;
  }

  step_us(column) { return this.steps.collected_us[column] - this.steps.launched_us[column]; }

  _life(key) {
    if (!this._lives.has(key)) this._lives.set(key, new Life(key, this.data.names?.[key] ?? `#${key}`));
    return this._lives.get(key);
  }

  _close(life) {
    // Who has not ended goes on to the right edge. The end is noted a step or two after the last row where launches
    // overlap; only who ended without a step, because it was aborted, has cells after its last row.
    if (life.ended === null) life.last = Math.max(life.last, this.length - 1);
    else if (life.rows.size && life.ended - Math.max(...life.rows.keys()) <= 2) life.ended = life.last = Math.max(...life.rows.keys());
    else life.last = Math.max(life.last, life.ended);
  }

  _read() {
    const {rows, lives, whats} = this.data;
    let at = 0;
    this.steps.rows.forEach((count, column) => {
      for (const until = at + count; at < until; at += 1) {
        const life = this._life(rows.key[at]);
        life.rows.set(column, at);
        life.span(column);
      }
    });
    lives.key.forEach((key, i) => {
      const state = STATES[whats[lives.what[i]]], life = this._life(key);
      if (state === "over") life.ended = this._after(lives.serial[i]) - 1; else if (state) this._turn(life, lives.serial[i], state);
    });
    for (const life of this._lives.values()) this._close(life);
  }

  _turn(life, serial, state) {
    // What happened while a step was the newest is true from the next one on.
    const column = this._after(serial);
    life.turns.push([column, state]);
    life.span(column);
  }

  _after(serial) {
    // The first column with a later serial.
    let low = 0, high = this.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.steps.serial[middle] <= serial) low = middle + 1; else high = middle;
    }
    return low;
  }
}
