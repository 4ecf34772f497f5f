// Door: the key the server may want, and whether it is ready; what it serves stands in the header. Knows no section.

import {at, element} from "./dom.js";
import {ask, call, hasKey, useKey} from "./server.js";

export const door = {serving: false, chat: false, model: "", batching: ""};

const changed = () => document.dispatchEvent(new Event("doorchange"));

export function askForKey(wrong) {
  at("key-card").hidden = false;
  at("key-text").textContent = wrong ? "This key is not one of the server's." : "This server needs an API key.";
  at("key").focus();
}

export async function watch() {
  // Asks once a second while the server starts, and not at all once it is ready.
  let state;
  try {
    const response = await call("/ready", {cache: "no-store"});
    if (response.status === 401) return askForKey(hasKey());
    state = await response.json();
  } catch {
    state = {status: "unreachable"};
  }
  door.serving = state.status === "ready";
  showState(state);
  if (door.serving) await showModel(); else if (state.status !== "failed") setTimeout(watch, 1000);
  changed();
}

function showState(state) {
  const progress = () => state.phase + (state.percent == null ? " …" : ` – ${state.percent} %`);
  const text = {
    starting: () => `The server is starting: ${progress()}`,
    restoring: () => `The engine died and is being restored: ${progress()}\n${state.reason}`,
    draining: () => "The server is stopping; it takes no new requests.",
    failed: () => `The engine has ended.\n${state.message}`,
    stalled: () => "The engine makes no progress.",
    unreachable: () => "The server cannot be reached. Is it still running?",
  }[state.status];
  const begins = state.status === "starting" || state.status === "restoring";
  at("banner").hidden = door.serving;
  at("banner").classList.toggle("failed", state.status === "failed" || state.status === "unreachable");
  if (text && at("banner-text").textContent !== text()) at("banner-text").textContent = text();
  at("banner-progress").hidden = !begins;
  if (state.percent == null) at("banner-progress").removeAttribute("value");
  else at("banner-progress").value = state.percent;
}

async function showModel() {
  const model = (await (await ask("/v1/models")).json()).data[0], facts = model.ridgeline;
  const known = await ask("/tokenizer_info").then(response => response.json()).catch(() => ({}));
  Object.assign(door, {model: model.id, batching: facts.batching});
  door.chat = Boolean(known.chat_template);
  at("model").replaceChildren(element("b", {text: model.id}), ` · ${facts.device} · ${facts.dtype} · ${facts.batching} batching`);
  at("note").textContent = facts.note || "";
  document.title = `${model.id} – Ridgeline`;
}

export function open() {
  at("key-form").addEventListener("submit", event => {
    event.preventDefault();
    useKey(at("key").value.trim());
    at("key-card").hidden = true;
    watch();
  });
  watch();
}
