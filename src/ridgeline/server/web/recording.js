// Recording: the section with the pipeline diagram, live from the server or replayed from a file. Knows /v1/recording.

import {at, element, figure} from "./dom.js";
import {askForKey} from "./door.js";
import {offer, save} from "./files.js";
import {CELLS, stall, swatch} from "./palette.js";
import {Pipeline} from "./pipeline.js";
import {Player} from "./player.js";
import {ask, hasKey} from "./server.js";
import {Tape} from "./tape.js";
import {ms, number, percent, plural} from "./words.js";

const REFRESH_MS = 1000, LIVE_STEPS = 160, SAVED_STEPS = 4096;

const STALLS = {window: "the policy waited for company", slots: "no seat was free", blocks: "no cache block was free",
  budget: "the step's token budget was spent", order: "others came first"};

let pipeline, player;
let following = false; // wanted
let shown = false; // the section is open
let timer = null; // of the next refresh
let text = null; // of the recording that was opened, as it was read

// --- what is shown ------------------------------------------------------------------------------------------------

export function put(data, column = 0) {
  // Raises an Error in words for a person where it is no recording.
  const tape = new Tape(data);
  at("tape-error").hidden = true;
  at("tape-title").textContent = `${data.model} · ${data.device} · ${plural(tape.length, "step")}, ${plural(tape.lives.length, "request")}`;
  at("crash").hidden = data.reason !== "crash";
  at("crash").firstElementChild.textContent = `The engine died after these steps.\n${data.message ?? ""}`;
  for (const id of ["back", "play", "forth", "scrub"]) at(id).disabled = !tape.length;
  at("scrub").max = Math.max(0, tape.length - 1);
  const start = Math.min(column, Math.max(0, tape.length - 1));
  pipeline.show(tape, start);
  if (!tape.length) at("cell").textContent = "The engine has made no step that it remembers.";
  else if (!pipeline.chosen) at("cell").textContent = "Point at a cell, or move over the diagram with the arrow keys, for what happened there.";
  player.put(tape, start);
  return tape;
}

export function present(data) {
  // What another section wants to be looked at: from its first step, and it does not move away.
  follow(false);
  text = null;
  return put(data);
}

function moved(column) {
  const {tape} = player, {steps} = tape;
  pipeline.to(column);
  at("scrub").value = column;
  at("scrub").ariaValueText = `step ${steps.serial[column]}`;
  const used = tape.data.num_blocks ? percent(steps.kv_blocks[column] / tape.data.num_blocks) : "";
  const why = tape.data.stalls[steps.stall[column]];
  at("step-figures").replaceChildren(...[
    ["Step", number(steps.serial[column]), `${number(column + 1)} of ${number(tape.length)}`],
    ["Began at", ms(steps.launched_us[column] / 1000)], ["Took", ms(tape.step_us(column) / 1000)], ["Rows", number(steps.rows[column])],
    ["Tokens", number(steps.tokens[column]), steps.horizon[column] > 1 ? `horizon ${steps.horizon[column]}` : ""],
    ["Padding", percent(tape.bubbles(column))], ["Waiting", number(steps.waiting[column])],
    ["KV blocks", number(steps.kv_blocks[column]), used], ["Stalled by", why || "nothing"],
  ].map(one => figure(...one)));
}

function told(life, column, here) {
  const {tape} = player, step = `${life.name}, step ${tape.steps.serial[column]}`;
  const why = here?.stall ? ` – ${STALLS[here.stall] ?? here.stall}` : "";
  const row = here?.count === undefined ? "" : `, positions ${here.start} to ${here.start + here.count - 1}, ${plural(here.made, "token")} made`;
  const what = !here ? "not there" : here.state === "retired" ? (here.phase ? `${here.phase}, its last step` : "ended without a part in it") : here.state;
  at("cell").textContent = `${step}: ${what}${row}${why}`;
}

function legend() {
  const cells = Object.entries(CELLS).map(([name, look]) => [look, name, look[3]]);
  const stalled = ["blocks", "budget", "order"].map(name => [stall(name), `stalled: ${name}`, STALLS[name]]);
  at("legend").replaceChildren(...[...cells, ...stalled].map(([look, word, why]) =>
    element("li", {title: why}, swatch(look), word)));
}

export function failed(error) {
  at("tape-error").hidden = false;
  at("tape-error").firstElementChild.textContent = error.message;
}

// --- live ---------------------------------------------------------------------------------------------------------

async function refresh() {
  // The newest steps, once a second, while the section is open, can be seen and follows.
  timer = null;
  if (!following || !shown || document.hidden) return;
  try {
    const data = await (await ask(`/v1/recording?steps=${LIVE_STEPS}`, {cache: "no-store"})).json();
    if (!following) return;
    text = null;
    put(data, data.steps.serial.length - 1);
    at("download").disabled = false;
  } catch (error) {
    if (error.status === 401) askForKey(hasKey());
    failed(error);
    if ([401, 403, 404].includes(error.status)) return follow(false);
  }
  if (timer === null) timer = setTimeout(refresh, REFRESH_MS);
}

function follow(wanted) {
  following = wanted;
  at("follow").ariaPressed = String(wanted);
  at("follow").setAttribute("aria-pressed", String(wanted));
  if (wanted && timer === null) refresh();
}

const still = move => (...given) => { follow(false); move(...given); };

// --- files --------------------------------------------------------------------------------------------------------

export function take(data, content) {
  follow(false);
  put(data);
  text = content;
  at("download").disabled = false;
}

async function download() {
  // What was opened, as it was; otherwise all that the server remembers.
  try {
    const content = text ?? await (await ask(`/v1/recording?steps=${SAVED_STEPS}`, {cache: "no-store"})).text();
    const when = new Date(1000 * JSON.parse(content).made_unix_s).toISOString().slice(0, 19).replaceAll(":", "");
    save(content, `ridgeline-recording-${when}.json`);
  } catch (error) {
    failed(error);
  }
}

// --- the section --------------------------------------------------------------------------------------------------

export function enter() {
  shown = true;
  if (!player.tape && !at("follow").hidden) follow(true); else if (following) follow(true);
}

export function leave() {
  shown = false;
  player.pause();
}

export function open() {
  pipeline = new Pipeline(at("pipeline"), told);
  player = new Player(moved, playing => {
    at("play").classList.toggle("playing", playing);
    at("play").ariaLabel = playing ? "Pause" : "Play";
  });
  legend();
  document.addEventListener("themechange", () => { document.querySelectorAll("canvas.swatch").forEach(one => one.repaint?.()); });
  document.addEventListener("visibilitychange", () => { if (shown && following) follow(true); });
  at("follow").addEventListener("click", () => follow(!following));
  at("download").addEventListener("click", download);
  at("play").addEventListener("click", still(() => player.toggle()));
  at("back").addEventListener("click", still(() => player.step(-1)));
  at("forth").addEventListener("click", still(() => player.step(1)));
  at("scrub").addEventListener("input", still(() => { player.pause(); player.to(Number(at("scrub").value)); }));
  at("speed").addEventListener("change", () => player.speed(Number(at("speed").value)));
  // Who looks around wants no view that moves away.
  for (const kind of ["wheel", "pointerdown", "keydown"]) at("pipeline").addEventListener(kind, still(() => {}), {passive: true});
  offer(at("open-file"), at("stage"));
}
