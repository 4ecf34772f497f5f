// Waterfall: where one request's wall clock went, and its share of the device. Knows what /v1/requests/{id} says.

import {drawn, element, figure} from "./dom.js";
import {PARTS, bar, swatch} from "./palette.js";
import {ms, number, percent, plural} from "./words.js";

const WIDE = 1000;
const MOST_SPANS = 400; // of one request; more are finer than a pixel

// Why a part is as long as it is; given the generation.
const REASONS = {
  received: () => "the client took its time to send the body",
  tokenised: () => "turning the text into tokens took the front that long",
  window: () => "the device was free, but the batching policy kept it back for company",
  queued: () => "every seat was taken, so it waited for one",
  prefill: g => `its prompt of ${plural(g.prompt_tokens - (g.cached_tokens ?? 0), "token")} had to be computed`,
  others: () => "it had a seat, but the steps that ran were for others",
  decode: g => `${plural(g.completion_tokens, "token")} in ${plural(g.steps, "step")} ${g.mean_rows < 1.05 ? "that it had to itself" : `of ${number(g.mean_rows, 1)} rows on average`}`,
  preempted: () => "its cache blocks were taken for others, and it had to wait for new ones",
  recomputed: () => "after a preemption what it had computed was computed again",
  delivered: () => "the engine's news waited for the front's event loop",
  detokenised: () => "turning tokens into text took the front that long",
  socket: () => "the client did not read fast enough",
};

function verdict(generation) {
  const worst = generation.parts.reduce((a, b) => b.ms > a.ms ? b : a, {name: "", ms: 0});
  if (!worst.ms || !generation.wall_ms) return "Nothing of it has been measured yet.";
  const share = percent(worst.ms / generation.wall_ms);
  return `${share} of its ${ms(generation.wall_ms)} went into “${worst.name}”: ${REASONS[worst.name]?.(generation) ?? ""}.`;
}

function placed(generation) {
  // name -> [[start_ms, end_ms]]; parts without spans stand where their order puts them, from the nearer end.
  const spans = {}, {parts} = generation;
  for (const span of (generation.spans ?? []).slice(0, MOST_SPANS)) (spans[span.name] ??= []).push([span.start_ms, span.end_ms]);
  const last = parts.findLastIndex(({name}) => name in spans);
  let from = 0, left = parts.reduce((sum, part) => sum + part.ms, 0);
  parts.forEach(({name, ms: length}, i) => {
    if (last >= 0 && i > last) from = generation.wall_ms - left;
    spans[name] ??= [[from, from + length]];
    from += length;
    left -= length;
  });
  return spans;
}

function lane(spans, look, wall) {
  const drawing = drawn("svg", {viewBox: `0 0 ${WIDE} 16`, preserveAspectRatio: "none", "aria-hidden": "true"});
  for (const [start, end] of spans) drawing.append(bar(WIDE * start / wall, WIDE * (end - start) / wall, look));
  return element("div", {class: "lane", role: "cell"}, drawing);
}

function scale(wall) {
  const ticks = [0, .25, .5, .75, 1].map(share => {
    const tick = element("span", {class: "tick", text: ms(share * wall)});
    tick.style.left = `${100 * share}%`;
    return tick;
  });
  return element("div", {class: "lane", role: "columnheader", "aria-label": "When"}, ...ticks);
}

function table(generation) {
  const wall = generation.wall_ms || 1, spans = placed(generation);
  const head = element("div", {class: "head", role: "row"}, ...["Part", "Time", "Share"].map((text, i) =>
    element("span", {role: "columnheader", class: i ? "number" : "", text})), scale(wall));
  const rows = generation.parts.filter(part => part.ms > 0).map(({name, ms: length}) => {
    const look = PARTS[name] ?? PARTS.received;
    return element("div", {role: "row", title: look[3]},
      element("span", {role: "rowheader"}, swatch(look), name),
      element("span", {role: "cell", class: "number", text: ms(length)}),
      element("span", {role: "cell", class: "number", text: percent(length / wall, 1)}),
      lane(spans[name], look, wall));
  });
  return element("div", {class: "waterfall", role: "table", "aria-label": "Parts of the request's time"}, head, ...rows);
}

function share(generation) {
  const device = generation.device_ms, wall = generation.wall_ms;
  if (device == null || !wall) return [];
  const fill = element("i");
  fill.style.width = `${Math.min(100, 100 * device / wall)}%`;
  const lost = generation.spans_from === "stamps" ? " The recording has lost its steps, so prefill and decode may hold other parts too." : "";
  const beside = Object.entries(generation.overlapped ?? {}).filter(([, value]) => value > 0)
    .map(([name, value]) => `${name.replace(/_ms$/, "")} ${ms(value)}`);
  const said = `Its share of the device: ${ms(device)}, as long as ${percent(device / wall, 1)} of its wall clock.`
    + (beside.length ? ` Beside the engine's work: ${beside.join(", ")}.` : "") + lost;
  return [element("p", {class: "share", text: said}), element("span", {class: "gauge", "aria-hidden": "true"}, fill)];
}

function one(generation, several) {
  const facts = [
    ["Wall clock", ms(generation.wall_ms)], ["Device share", ms(generation.device_ms)], ["Steps", number(generation.steps)],
    ["Rows a step", number(generation.mean_rows, 1)], ["Prompt tokens", number(generation.prompt_tokens), generation.cached_tokens ? `${number(generation.cached_tokens)} cached` : ""],
    ["New tokens", number(generation.completion_tokens)], ["Preemptions", number(generation.preemptions)],
  ];
  return element("section", {"aria-label": several ? `Generation ${generation.index}` : "The request"},
    ...(several ? [element("h2", {text: `Generation ${generation.index}`})] : []),
    element("p", {class: "verdict", text: verdict(generation)}), table(generation), ...share(generation),
    element("dl", {class: "figures"}, ...facts.map(fact => figure(...fact))));
}

export function shown(request) {
  // The whole of a request: every generation has a waterfall of its own.
  // One that did not come as far as the engine has none, but parts of its own.
  const generations = request.generations?.length ? request.generations : [{...request, parts: request.parts ?? []}];
  return element("div", {}, ...generations.map(generation => one(generation, generations.length > 1)));
}
