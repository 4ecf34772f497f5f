// Learn: the section that asks before it shows. Knows its parts; each knows the rest itself.

import {open as openBatching} from "./batching.js";
import {load as loadQuiz} from "./quiz.js";
import {open as openSeats} from "./seats.js";
import {stop} from "./trial.js";

export function enter() {
  loadQuiz();
}

export function leave() {
  stop("Stopped, because the section was left.");
}

export function open() {
  openBatching();
  openSeats();
  document.addEventListener("keydown", event => { if (event.key === "Escape") stop(); });
}
