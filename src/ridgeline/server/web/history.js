// History: the last ten minutes of the server's live numbers, never more. Knows events; knows no chart.

export const KEPT_S = 600;
const MOST = 1300; // two a second for ten minutes, and some

export class History {
  constructor() {
    this._events = [];
  }

  get length() { return this._events.length; }
  get newest() { return this._events.at(-1) ?? null; }

  add(event) {
    // Charts need neither the requests nor more than the time kept.
    const {requests: _, ...numbers} = event;
    this._events.push(numbers);
    let drop = Math.max(0, this._events.length - MOST);
    while (this._events[drop].at_s < event.at_s - KEPT_S) drop += 1;
    if (drop) this._events.splice(0, drop);
  }

  gap() {
    // Nobody watched for a while: lines end here and begin again.
    const last = this.newest;
    if (last && !last.gap) this._events.push({at_s: last.at_s + .001, gap: true});
  }

  column(of, since_s) {
    // [seconds before the newest, what] of the events since then; null where there is nothing to show.
    const from = this._events.findIndex(event => event.at_s >= since_s);
    const shown = from < 0 ? [] : this._events.slice(from);
    return [shown.map(event => event.at_s - this.newest.at_s), shown.map(event => event.gap ? null : of(event) ?? null)];
  }
}
