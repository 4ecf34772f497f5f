// Batching: the experiment that says what requests at once gain on this server, after a guess. Knows what a burst found.

import {LEVELS, climbed} from "./burst.js";
import {Curve} from "./curve.js";
import {at, element} from "./dom.js";
import {door} from "./door.js";
import {judged, parsed, three} from "./guess.js";
import {attempt, running, stop} from "./trial.js";
import {ms, number, plural, rate} from "./words.js";

const UNSTEADY = 1.5; // times the lowest round that the highest may be

let curve;
let rounds = []; // what each round found, by level
let found = []; // by level: medians, of all rounds that have it

const median = values => [...values].sort((a, b) => a - b)[values.length >> 1];

function taken({round, ...one}) {
  (rounds[round] ??= []).push(one);
  found = rounds[0].map(({many}, i) => {
    const with_it = rounds.filter(levels => i in levels), ratios = with_it.map(levels => levels[i].tokens_per_s / levels[0].tokens_per_s);
    const of = name => median(with_it.map(levels => levels[i][name]));
    return {many, tokens_per_s: of("tokens_per_s"), rows: of("rows"), times: median(ratios), spread: Math.max(...ratios) / Math.min(...ratios)};
  });
}

async function run() {
  rounds = [];
  found = [];
  curve.locked = true;
  at("burst-told").replaceChildren();
  show();
  say("Warming up …");
  const ended = await attempt(async signal => {
    for await (const one of climbed(signal)) {
      taken(one);
      show();
      say(`Round ${one.round + 1} …`);
    }
  });
  const whole = `Done: medians of ${plural(rounds.length, "round")}, in which the levels took turns.`;
  say(ended ? `${ended}${found.length ? " What was measured stands." : ""}` : whole);
  curve.locked = found.length > 0;
  if (found.length > 1) at("burst-told").replaceChildren(...explained(curve.guess).map((text, i) => element("p", {class: i ? "" : "verdict", text})));
  settle();
}

function explained(guess) {
  const one = found[0], most = found.at(-1), sentences = [];
  sentences.push(`${plural(most.many, "request")} at once: ${judged(guess[found.length - 1], most.times, "x", "this server").replace(/^You/, "you")}`);
  if (most.rows < .9 * most.many) {
    const rows = number(most.rows, 1);
    sentences.push(`Of the ${most.many} only ${rows} on average were in a step (batching ${door.batching}); the others waited for a seat or for their turn. More seats: --max-num-seqs.`);
  }
  if (found.some(level => level.rows > 1.1 * level.many)) sentences.push("Requests of others were in these steps too, so they share in the figures.");
  if (most.spread > UNSTEADY) sentences.push(`The rounds differ by up to ${number(most.spread, 1)} times: something else keeps this machine busy.`);
  if (most.times > 1.1 * most.many) sentences.push(`More than ${most.many} times is no gain of batching: the request that was alone was held up by something else.`);
  const step_ms = 1000 * one.rows / one.tokens_per_s, full_ms = 1000 * most.rows / most.tokens_per_s, longer = full_ms / step_ms;
  sentences.push(`A step of one took ${ms(step_ms)}, a step of ${number(most.rows)} ${ms(full_ms)}: ${three(longer)} times as long for ${number(most.rows / one.rows)} times the tokens. ${reason(longer, most.rows)}`);
  return sentences;
}

function reason(longer, rows) {
  if (longer < 1.5) return "Nearly all of a step is there whoever is in it: every weight is read once and every operation is started once, for all.";
  if (longer < rows / 2) return "Every weight is read once a step and every operation is started once, for all; what each request brings along, its arithmetic and its cache, makes the rest.";
  return "What each request brings along, its arithmetic, its cache and the way of its tokens to this page, outweighs what they share: reading every weight once a step.";
}

const say = text => { if (at("burst-state").textContent !== text) at("burst-state").textContent = text; };

function show() {
  curve.put(found.map(one => one.times));
  LEVELS.forEach((_, i) => {
    at("burst-times").cells[i + 1].textContent = i in found ? `${three(found[i].times)}×` : "–";
    at("burst-rate").cells[i + 1].textContent = i in found ? rate(found[i].tokens_per_s) : "–";
  });
  settle();
}

function guessed() {
  for (const field of fields()) {
    const value = curve.guess?.[field.dataset.index];
    if (field !== document.activeElement) field.value = value === undefined ? "" : three(value);
  }
  if (!running() && !curve.locked) say(curve.guess ? "" : "Guess first.");
  settle();
}

const fields = () => at("burst-guess").querySelectorAll("input");

function settle() {
  at("burst-run").disabled = !door.serving || running() || !curve.guess;
  at("burst-run").textContent = found.length && !running() ? "Run again" : "Run";
  at("burst-stop").disabled = !running();
  at("burst-afresh").disabled = running() || !curve.guess;
  for (const field of fields()) field.readOnly = curve.locked;
}

function afresh() {
  rounds = [];
  found = [];
  curve.clear();
  at("burst-told").replaceChildren();
  for (const field of fields()) field.removeAttribute("aria-invalid");
  show();
  guessed();
}

function column(many, i) {
  at("bursts").tHead.rows[0].append(element("th", {scope: "col", text: String(many)}));
  for (const row of ["times", "rate"]) at(`burst-${row}`).append(element("td", {text: "–"}));
  if (!i) return at("burst-guess").append(element("td", {text: "1×"}));
  const field = element("input", {inputmode: "decimal", autocomplete: "off", "data-index": i, "aria-label": `Guess for ${many} at once, in times the tokens of one`});
  field.addEventListener("input", () => {
    const value = parsed(field.value);
    field.setAttribute("aria-invalid", String(value === null && field.value.trim() !== ""));
    curve.give(i, value);
  });
  field.addEventListener("blur", guessed);
  at("burst-guess").append(element("td", {}, field));
}

export function open() {
  LEVELS.forEach(column);
  curve = new Curve(at("curve"), LEVELS, guessed);
  at("burst-run").addEventListener("click", run);
  at("burst-stop").addEventListener("click", () => stop());
  at("burst-afresh").addEventListener("click", afresh);
  for (const change of ["doorchange", "trialchange"]) document.addEventListener(change, settle);
}
