// Tokens: a streamed text token by token, each with what else it could have been. Knows no request.

import {at, element} from "./dom.js";
import {percent} from "./words.js";

const told = new WeakMap(); // a token's element -> [{token, odds, others}]

export function entries(logprobs) {
  // Both routes' log-probabilities as [{token, odds, others: [[token, odds]]}].
  if (!logprobs) return [];
  if (logprobs.content) {
    return logprobs.content.map(one => ({
      token: one.token, odds: Math.exp(one.logprob), others: one.top_logprobs.map(other => [other.token, Math.exp(other.logprob)]),
    }));
  }
  return logprobs.tokens.map((token, i) => ({
    token, odds: Math.exp(logprobs.token_logprobs[i]),
    others: Object.entries(logprobs.top_logprobs?.[i] ?? {}).map(([other, value]) => [other, Math.exp(value)]).sort((a, b) => b[1] - a[1]),
  }));
}

export function pieces(text, known) {
  // Elements of a text: one a token where the tokens spell it, otherwise one for all (a character cut in pieces).
  if (!known.length) return [text];
  if (known.map(one => one.token).join("") === text) return known.map(one => piece(one.token, [one]));
  return [piece(text, known)];
}

function piece(text, known) {
  const odds = Math.min(...known.map(one => one.odds));
  const made = element("span", {class: `token${odds < .1 ? " unlikely" : odds < .5 ? " unsure" : ""}`, tabindex: "-1", text});
  told.set(made, known);
  return made;
}

const visible = token => token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "·");

function show(made) {
  const card = at("token-card"), known = told.get(made);
  if (!known) return;
  card.replaceChildren(...known.slice(0, 4).flatMap(one => [
    element("p", {}, element("code", {text: visible(one.token)}), ` ${percent(one.odds, 1)}`), table(one),
  ]));
  card.hidden = false;
  const {left, bottom} = made.getBoundingClientRect();
  const widest = document.documentElement.clientWidth - card.offsetWidth - 8;
  card.style.left = `${scrollX + Math.max(8, Math.min(left, widest))}px`;
  card.style.top = `${scrollY + bottom + 6}px`;
}

function table(one) {
  const rows = one.others.some(([token]) => token === one.token) ? one.others : [...one.others, [one.token, one.odds]];
  return element("div", {class: "odds"}, ...rows.flatMap(([token, odds]) => {
    const bar = element("i");
    bar.style.width = `${100 * odds}%`;
    return [element("code", {text: visible(token), class: token === one.token ? "taken" : ""}), bar, element("span", {text: percent(odds, 1)})];
  }));
}

const hide = () => { at("token-card").hidden = true; };

export function open() {
  const output = at("output");
  document.body.append(at("token-card")); // it may reach over the edge of its card
  output.addEventListener("pointerover", event => event.target.matches(".token") ? show(event.target) : hide());
  output.addEventListener("pointerleave", hide);
  let width = innerWidth; // on a phone the height changes with every scroll
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; hide(); } });
  output.addEventListener("focusin", event => { if (event.target.matches(".token")) show(event.target); });
  output.addEventListener("focusout", hide);
  output.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    const all = [...output.querySelectorAll(".token")], here = all.indexOf(document.activeElement);
    all[here < 0 ? (step > 0 ? 0 : all.length - 1) : Math.max(0, Math.min(all.length - 1, here + step))]?.focus();
    event.preventDefault();
  });
}
