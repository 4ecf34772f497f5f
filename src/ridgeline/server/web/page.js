// Page: its sections, of which one is open at a time. Knows their names; each knows the rest itself.

import {open as openDetails} from "./details.js";
import {at} from "./dom.js";
import {open as openDoor} from "./door.js";
import {open as openFiles} from "./files.js";
import * as learn from "./learn.js";
import * as live from "./live.js";
import * as playground from "./playground.js";
import * as recording from "./recording.js";
import * as report from "./report.js";
import {KIND} from "./tape.js";

const SERVED = {playground, live, recording, report, learn};
const SAVED = {recording, report}; // those that need no server

const saved = at("saved"), sections = saved ? SAVED : SERVED;
let name = null; // of the open section

function go() {
  const wanted = location.hash.slice(1), next = wanted in sections ? wanted : Object.keys(sections)[0];
  if (next === name) return;
  sections[name]?.leave?.();
  name = next;
  for (const section of document.querySelectorAll("[data-section]")) section.hidden = section.dataset.section !== name;
  for (const tab of at("tabs").children) {
    if (tab.hash === `#${name}`) tab.setAttribute("aria-current", "page"); else tab.removeAttribute("aria-current");
  }
  sections[name].enter?.();
}

function show(data, content) {
  // What was opened goes to the section that knows it; where that refuses, the open one stays and says why.
  const next = data?.kind === KIND ? "recording" : "report";
  sections[next].take(data, content);
  location.hash = next;
  go();
}

function replay() {
  // A page that was saved with something in it: there is no server to ask.
  for (const id of ["tabs", "docs", "follow"]) at(id).hidden = true;
  const content = saved.textContent, data = JSON.parse(content);
  location.hash = data.kind === KIND ? "recording" : "report";
  go();
  show(data, content);
  at("model").textContent = `saved ${name}`;
}

for (const section of Object.values(sections)) section.open();
openFiles(show, error => sections[name].failed(error));
addEventListener("hashchange", go);
if (saved) {
  replay();
} else {
  openDetails();
  openDoor();
  go();
}
