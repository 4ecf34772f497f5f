// Page: its sections, of which one is open at a time. Knows their names; each knows the rest itself.

import {open as openDetails} from "./details.js";
import {at} from "./dom.js";
import {open as openDoor} from "./door.js";
import * as learn from "./learn.js";
import * as live from "./live.js";
import * as playground from "./playground.js";
import * as recording from "./recording.js";

const SECTIONS = {playground, live, recording, learn};
let name = null; // of the open section

function go() {
  const wanted = location.hash.slice(1), next = wanted in SECTIONS ? wanted : "playground";
  if (next === name) return;
  SECTIONS[name]?.leave?.();
  name = next;
  for (const section of document.querySelectorAll("[data-section]")) section.hidden = section.dataset.section !== name;
  for (const tab of at("tabs").children) {
    if (tab.hash === `#${name}`) tab.setAttribute("aria-current", "page"); else tab.removeAttribute("aria-current");
  }
  SECTIONS[name].enter?.();
}

function replay(saved) {
  // A page that was saved with a recording in it: there is no server to ask.
  for (const id of ["tabs", "docs", "follow"]) at(id).hidden = true;
  recording.open();
  location.hash = "recording";
  go();
  at("model").textContent = "saved recording";
  recording.put(JSON.parse(saved.textContent));
}

function serve() {
  for (const section of Object.values(SECTIONS)) section.open();
  openDetails();
  openDoor();
  addEventListener("hashchange", go);
  go();
}

const saved = at("saved-recording");
if (saved) replay(saved); else serve();
