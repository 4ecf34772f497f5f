// Live: what the server does now, twice a second, while somebody looks. Knows /v1/live; knows no recording.

import {Charts} from "./charts.js";
import {showDetails} from "./details.js";
import {at, element, figure} from "./dom.js";
import {askForKey} from "./door.js";
import {History} from "./history.js";
import {ask, events, hasKey} from "./server.js";
import {ms, number, percent, rate} from "./words.js";

const FIRST_WAIT_S = 1, LONGEST_WAIT_S = 30;

export const history = new History();
let charts = null;
let stream = null; // the controller of the open stream, or of the wait for the next
let wanted = false; // the section is open

function say(state, text) {
  at("live-state").dataset.state = state;
  if (at("live-state").textContent !== text) at("live-state").textContent = text;
}

async function follow(signal) {
  // Until the signal: the stream, and again after each end of it, later and later while it fails.
  for (let wait_s = FIRST_WAIT_S; !signal.aborted; wait_s = Math.min(LONGEST_WAIT_S, 2 * wait_s)) {
    let reason = "the stream ended";
    try {
      say("waiting", "Connecting …");
      const response = await ask("/v1/live", {signal, cache: "no-store"});
      for await (const event of events(response)) {
        say("open", "Live");
        wait_s = FIRST_WAIT_S;
        take(event);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401) askForKey(hasKey());
      if ([401, 403, 404].includes(error.status)) return say("closed", error.message);
      reason = error.message;
    }
    if (signal.aborted) return;
    history.gap();
    say("waiting", `Reconnecting in ${wait_s} s: ${reason}`);
    await new Promise(resolve => {
      const timer = setTimeout(resolve, 1000 * wait_s);
      signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, {once: true});
    });
  }
}

export function take(event) {
  history.add(event);
  tiles(event);
  table(event.requests ?? []);
  charts?.tick();
}

function tiles(e) {
  const blocks = e.num_blocks ? percent(e.kv_blocks / e.num_blocks) : "–";
  const shown = [
    ["Tokens a second", rate(e.tokens_per_s)], ["Prompt tokens/s", rate(e.prompt_tokens_per_s)],
    ["Running", number(e.running), e.waiting ? `${number(e.waiting)} waiting` : ""], ["Rows a step", number(e.mean_rows, 1)],
    ["Step", ms(e.step_ms), `${rate(e.steps_per_s)}/s`], ["KV blocks", blocks, `${number(e.kv_blocks)} of ${number(e.num_blocks)}`],
    ["Bandwidth used", percent(e.mbu)], ["Prefix hits", percent(e.prefix_hit_rate)], ["Padding", percent(e.padding)],
    ["Preemptions", number(e.preemptions)], ["First token p95", ms(e.ttft_ms?.p95)], ["Whole answer p95", ms(e.e2e_ms?.p95)],
  ];
  at("tiles").replaceChildren(...shown.map(one => figure(...one)));
}

function table(requests) {
  // Rows are kept by request, so that the focus stays where it is while numbers change.
  const body = at("requests").tBodies[0], rows = new Map([...body.rows].map(row => [row.dataset.id, row]));
  requests.forEach((request, i) => {
    const row = rows.get(request.id) ?? newRow(request.id);
    rows.delete(request.id);
    const cells = [request.state, number(request.prompt_tokens), number(request.completion_tokens), ms(request.wall_ms),
      ms(request.device_ms), request.finish_reason ?? request.error ?? "–"];
    cells.forEach((text, cell) => { if (row.cells[cell + 1].textContent !== text) row.cells[cell + 1].textContent = text; });
    if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] ?? null);
  });
  rows.forEach(row => row.remove());
  at("requests").hidden = !requests.length;
  at("no-requests").hidden = requests.length > 0;
}

function newRow(id) {
  const row = element("tr", {"data-id": id}, element("td", {}, element("button", {type: "button", title: id, text: id})));
  for (let cell = 0; cell < 6; cell += 1) row.append(element("td"));
  return row;
}

function look() {
  // Open exactly while the section is shown in a window that can be seen.
  const open = wanted && !document.hidden;
  if (open === (stream !== null)) return;
  if (open) {
    stream = new AbortController();
    follow(stream.signal);
  } else {
    stream.abort();
    stream = null;
    history.gap();
    say("closed", "Paused while nobody looks");
  }
}

export function enter() {
  wanted = true;
  charts ??= new Charts(history);
  charts.draw();
  look();
}

export function leave() {
  wanted = false;
  look();
}

export function open() {
  document.addEventListener("visibilitychange", look);
  // A stream that was refused is asked for again with the key that came.
  document.addEventListener("doorchange", () => { if (wanted && at("live-state").dataset.state === "closed") { leave(); enter(); } });
  at("span").addEventListener("change", () => charts.span(Number(at("span").value)));
  at("requests").tBodies[0].addEventListener("click", event => {
    const row = event.target.closest("tr");
    if (row) showDetails(row.dataset.id);
  });
}
