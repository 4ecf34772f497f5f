// Details: one request's waterfall in a window of its own. Knows ids; knows no list of requests.

import {at, element} from "./dom.js";
import {ask} from "./server.js";
import {shown} from "./waterfall.js";

export async function showDetails(id) {
  at("details-title").textContent = id;
  at("details-body").replaceChildren(element("p", {class: "dim", text: "Loading …"}));
  if (!at("details").open) at("details").showModal();
  try {
    const request = await (await ask(`/v1/requests/${encodeURIComponent(id)}`, {cache: "no-store"})).json();
    at("details-body").replaceChildren(shown(request));
  } catch (error) {
    at("details-body").replaceChildren(element("p", {text: error.message}));
  }
}

export function open() {
  at("details-close").addEventListener("click", () => at("details").close());
  at("details").addEventListener("click", event => { if (event.target === at("details")) at("details").close(); });
}
