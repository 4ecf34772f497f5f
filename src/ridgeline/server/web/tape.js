// Tape: a recording as requests down and steps across. Knows the format and what each cell is; draws nothing.

export const KIND = "ridgeline-recording";

const VERSION = 1;
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
  // One request. rows: column -> its row in the recording. turns: [[when, what]] as they were written, then
  // states: [[from this column on, state]]. It has cells from first to last; ended: the column of its last step, or null.
  constructor(key, name) {
    Object.assign(this, {key, name, rows: new Map(), turns: [], states: [], first: 0, last: -1, ended: null});
  }

  state(column) {
    let state = null;
    for (const [from, next] of this.states) { if (from > column) break; state = next; }
    return state;
  }
}

// What a turn makes of who has no row in a step.
const STATES = {admitted: "stalled", preempted: "preempted"};

export class Tape {
  // Cells follow the rules of lab/pipeline/cells.py, which a test holds them to.
  constructor(data) {
    check(data);
    Object.assign(this, {data, steps: data.steps, length: data.steps.serial.length, _lives: new Map()});
    this._read();
    for (const life of this._lives.values()) this._close(life);
    this.lives = [...this._lives.values()].filter(life => life.first <= life.last)
      .sort((a, b) => a.first - b.first || a.key - b.key);
    this.mostTokens = this.steps.tokens.reduce((most, tokens) => Math.max(most, tokens), 1);
  }

  cell(life, column) {
    // What stands there: null, or its state (a name of the palette's CELLS), its row, and why it had no part.
    if (column < life.first || column > life.last) return null;
    const {data, steps} = this, row = life.rows.get(column), stall = data.stalls[steps.stall[column]];
    if (row !== undefined) {
      const phase = data.phases[data.rows.phase[row]], state = column === life.ended ? "retired" : phase;
      return {state, phase, start: data.rows.start[row], count: data.rows.count[row], made: data.rows.made[row]};
    }
    if (column === life.ended) return {state: "retired", phase: null};
    const state = life.state(column);
    if (state === "queued" && stall === "window") return {state: "window", stall};
    return {state, stall};
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

  _read() {
    const {rows, lives, whats} = this.data;
    let at = 0;
    this.steps.rows.forEach((count, column) => {
      for (const until = at + count; at < until; at += 1) this._life(rows.key[at]).rows.set(column, at);
    });
    lives.key.forEach((key, i) => this._life(key).turns.push([lives.at_us[i], whats[lives.what[i]]]));
  }

  _close(life) {
    const [begun_us, begun] = life.turns[0] ?? [], known = begun !== undefined, columns = [...life.rows.keys()];
    const over = life.turns.findLast(([, what]) => what === "ended");
    life.first = begun === "arrived" ? this._after(begun_us) : known ? 0 : columns[0];
    life.last = known ? this.length - 1 : columns.at(-1);
    // What was before the first thing that is known of it.
    life.states.push([0, begun === "arrived" || begun === "admitted" ? "queued" : "stalled"]);
    for (const [at_us, what] of life.turns) {
      if (STATES[what]) life.states.push([this._after(at_us), STATES[what]]);
    }
    if (!over) return;
    // What was launched for one who is over is dropped.
    for (const column of columns) if (this.steps.collected_us[column] > over[0]) life.rows.delete(column);
    const column = this._after(over[0]);
    if (column < this.length) life.ended = life.last = column;
  }

  _after(at_us) {
    // The first column whose step was collected then or later.
    const {collected_us} = this.steps;
    let low = 0, high = this.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (collected_us[middle] < at_us) low = middle + 1; else high = middle;
    }
    return low;
  }
}
