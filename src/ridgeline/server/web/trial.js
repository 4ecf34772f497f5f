// Trial: one experiment at a time. It can be stopped, ends by itself, and says in words what went wrong. Knows no section.

import {askForKey, watch} from "./door.js";
import {hasKey} from "./server.js";

const LONGEST_S = 60;

let controller = null; // of the experiment that runs

export const running = () => controller !== null;

const changed = () => document.dispatchEvent(new Event("trialchange"));

export const stop = (why = "Stopped.") => controller?.abort(new Error(why));

export async function attempt(work) {
  // work(signal). Resolves to null, or to what ended it before it was done.
  controller = new AbortController();
  const {signal} = controller, timer = setTimeout(() => stop(`Ended after ${LONGEST_S} s: this server takes longer.`), 1000 * LONGEST_S);
  changed();
  try {
    await work(signal);
    return null;
  } catch (error) {
    return signal.aborted ? signal.reason.message : words(error);
  } finally {
    clearTimeout(timer);
    controller = null;
    changed();
  }
}

function words(error) {
  if (error.status === 401) askForKey(hasKey());
  if (error instanceof TypeError || error.type === "service_unavailable") watch(); // it may be gone, or start again
  if (error instanceof TypeError) return "The server cannot be reached. Is it still running?";
  if (error.status === 429) return `The server takes no more now: ${error.message}.`;
  return error.status === 400 ? `The server refused it: ${error.message}.` : `${error.message}.`;
}
