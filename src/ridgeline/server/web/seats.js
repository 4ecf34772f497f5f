// Seats: the experiment whose answer stands in the Recording: which seats make no token once short requests have ended.

import {unequal} from "./burst.js";
import {at, element} from "./dom.js";
import {door} from "./door.js";
import {judged, parsed} from "./guess.js";
import {present} from "./recording.js";
import {ask} from "./server.js";
import {Tape} from "./tape.js";
import {attempt, running, stop} from "./trial.js";
import {plural} from "./words.js";

const LENGTHS = [8, 16, 32, 64], SEATS = 2 * LENGTHS.length, STEPS = 96; // the newest, in which theirs are

let recorded = null; // with the steps of the last run

async function run(guess) {
  recorded = null;
  at("seats-told").replaceChildren();
  at("seats-state").textContent = "Running …";
  const ended = await attempt(async signal => {
    const ids = (await unequal(LENGTHS, signal)).map(one => one.id);
    recorded = await (await ask(`/v1/recording?steps=${STEPS}`, {signal, cache: "no-store"})).json();
    tell(guess, empty(new Tape(recorded), ids));
  });
  at("seats-state").textContent = ended ?? "";
  settle();
}

function empty(tape, ids) {
  // The share of seats without a token in the steps from the first to the last of theirs; null where none is known.
  const ours = tape.lives.filter(life => ids.some(id => life.name.startsWith(id))), columns = ours.flatMap(life => [...life.rows.keys()]);
  if (!columns.length) return null;
  const {horizon} = tape.steps, made = ours.flatMap(life => [...life.rows.values()]).reduce((sum, row) => sum + tape.data.rows.made[row], 0);
  const turns = [...new Set(columns)].reduce((sum, column) => sum + horizon[column], 0);
  return {turns, share: 1 - made / (SEATS * turns), made};
}

function tell(guess, seats) {
  if (!seats) return at("seats-told").replaceChildren(element("p", {text: "The recording does not hold their steps."}));
  at("seats-told").replaceChildren(
    element("p", {class: "verdict", text: judged(guess, 100 * seats.share, " %", "the recording")}),
    element("p", {text: `${plural(seats.made, "token")} in ${plural(seats.turns, "turn")} of ${SEATS} seats. The longest request sets the turns; from the end of each shorter one its seat is empty, unless somebody waits for it. That is what continuous batching fills, and static batching does not.`}));
}

function settle() {
  at("seats-run").disabled = !door.serving || running();
  at("seats-stop").disabled = !running();
  at("seats-look").hidden = running() || !recorded;
}

export function open() {
  at("seats-form").addEventListener("submit", event => {
    event.preventDefault();
    const guess = parsed(at("seats-guess").value);
    at("seats-guess").setAttribute("aria-invalid", String(guess === null));
    if (guess !== null && !running()) return run(guess);
    at("seats-state").textContent = "Guess first: a number above 0.";
    at("seats-guess").focus();
  });
  at("seats-stop").addEventListener("click", () => stop());
  at("seats-look").addEventListener("click", () => { present(recorded); location.hash = "recording"; });
  for (const change of ["doorchange", "trialchange"]) document.addEventListener(change, settle);
}
