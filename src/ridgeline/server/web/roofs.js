// Roofs: a roofline, as traces and layout for the library and entries for a legend. Knows no page.

import {colour, narrow, symbol, titled, words} from "./figures.js";
import {axis} from "./plots.js";

const STEP = "#e5484d", ROOF = "#6f7f92", SHEET = "#a07cc5", LETTER = 12; // pixels
const DASHES = {level: "solid", roof: "solid", "other roof": "dot", datasheet: "dash"};
const PREFIXES = ["", "k", "M", "G", "T", "P", "E"];

function rate(power) {
  // 10 to this power, as FLOP/s are called.
  const unit = Math.min(Math.max(0, Math.floor(power / 3)), PREFIXES.length - 1);
  return `${Number((10 ** (power - 3 * unit)).toPrecision(3))} ${PREFIXES[unit]}`.trim();
}

function powers([low, high], said) {
  const found = [];
  const [first, last] = [Math.ceil(Math.log10(low)), Math.log10(high)].map(power => Math.max(-30, Math.min(30, power)));
  for (let power = first; power <= last; power += 1) found.push(power);
  return {type: "log", range: [Math.log10(low), Math.log10(high)], tickvals: found.map(power => 10 ** power), ticktext: found.map(said)};
}

function roof({kind, name, begin, end}) {
  const isSheet = kind === "datasheet";
  return {
    type: "scatter", mode: "lines", name: words(name), x: [begin[0], end[0]], y: [begin[1], end[1]], hovertext: words(name), hoverinfo: "text",
    line: {color: isSheet ? SHEET : ROOF, width: kind === "roof" || kind === "level" ? 2.5 : 1.5, dash: DASHES[kind] ?? "solid"},
  };
}

function place(text, x, y, more) {
  return {text, x: Math.log10(x), y: Math.log10(y), showarrow: false, font: {size: LETTER, color: ROOF}, ...more};
}

const isFlat = roof => roof.begin[1] === roof.end[1];

function flat({label, end, aside}) {
  return place(words(label), ...end, {xanchor: "right", yanchor: aside === "below" ? "top" : "bottom"});
}

function diagonals(roofs, [across, up]) {
  // Their names, turned as the lines are; of lines that are nearer than a name is high, one under the other.
  // across, up: pixels of a power of ten.
  const angle = Math.atan2(up, across), found = [];
  const from = (a, b) => Math.log10(b.end[0] / a.end[0]) * across * Math.sin(angle);
  for (const roof of [...roofs].sort((a, b) => a.end[0] - b.end[0])) {
    const near = found.at(-1);
    if (near && from(near.at(-1), roof) < 1.4 * LETTER) near.push(roof); else found.push([roof]);
  }
  const turned = {xanchor: "left", yanchor: "bottom", align: "left", textangle: -angle * 180 / Math.PI};
  return found.map(near => place(near.map(({label}) => words(label)).join("<br>"), ...near.at(-1).end, turned));
}

function group({name, index, joined, marks}, looks, small) {
  const isStep = index === null, isCalled = isStep && (joined || !small), paint = isStep ? STEP : colour(index);
  const mode = [joined && "lines", "markers", isCalled && "text"].filter(Boolean).join("+");
  return {
    type: "scatter", mode, name: words(name), x: marks.map(one => one.x), y: marks.map(one => one.y), opacity: isStep ? 1 : .85,
    text: marks.map(one => words(one.label)), textposition: joined ? "bottom right" : "bottom center",
    line: {color: paint, width: isStep ? 3 : 1},
    marker: {color: paint, symbol: joined ? symbol(isStep ? 0 : index) : "star", size: marks.map(one => (small ? .7 : 1) * (one.size ?? 8)), opacity: 1,
      line: isStep ? {width: 1, color: looks.card} : {width: 0}},
    hovertext: marks.map(one => `<b>${words(one.hint).replace("<br>", "</b><br>")}`), hoverinfo: "text",
  };
}

function names({across, up, roofs, named: [, at, told]}, width, height, looks) {
  const decades = ([low, high]) => Math.log10(high / low), called = roofs.filter(one => one.label);
  const [first] = told.split("\n"), text = words(told).replace(words(first), `<b>${words(first)}</b>`);
  const ridge = place(text, ...at, {xanchor: "left", yanchor: "bottom", align: "left", font: {size: LETTER, color: looks.ink}});
  const scale = [width / decades(across), height / decades(up)];
  return [...called.filter(isFlat).map(flat), ...diagonals(called.filter(one => !isFlat(one)), scale), ridge];
}

const leader = ([[x, y], [nameX, nameY]]) =>
  ({type: "scatter", mode: "lines", x: [x, nameX], y: [y, nameY], line: {color: ROOF, width: 1}, hoverinfo: "skip"});

function listed(roofs) {
  // The names where there is no room beside the lines.
  const ordered = (wanted, of) => roofs.filter(one => one.kind !== "datasheet" && isFlat(one) === wanted).sort(of).map(one => one.name).join(", ");
  const diagonal = ordered(false, (a, b) => a.end[0] - b.end[0]), level = ordered(true, (a, b) => b.end[1] - a.end[1]);
  return `Diagonals, from the left: ${diagonal}. Flat lines, from the top: ${level}.`;
}

export function roofs(figure, looks, width) {
  const small = narrow(width), legend = new Map(), traces = [];
  const add = (trace, entry) => {
    if (entry) {
      if (!legend.has(entry.name)) legend.set(entry.name, {...entry, traces: []});
      legend.get(entry.name).traces.push(traces.length);
    }
    traces.push(trace);
  };
  for (const one of figure.roofs) add(roof(one), one.kind === "datasheet" && {name: one.name, colour: SHEET, dash: "dash", symbol: null});
  for (const one of figure.groups) {
    const isStep = one.index === null;
    add(group(one, looks, small), {name: one.name, colour: isStep ? STEP : colour(one.index), dash: one.joined ? "solid" : null,
      symbol: one.joined ? symbol(isStep ? 0 : one.index) : "star"});
  }
  add({type: "scatter", mode: "markers", name: "ridge points", x: figure.ridges.map(one => one.x), y: figure.ridges.map(one => one.y),
    marker: {symbol: "diamond-open", size: small ? 9 : 12, color: ROOF, line: {width: 2}}, hovertext: figure.ridges.map(one => words(one.hint)), hoverinfo: "text"},
  {name: "ridge points", colour: ROOF, dash: null, symbol: "diamond-open"});
  const height = small ? 440 : 640, margin = {l: small ? 58 : 84, r: 12, t: 12, b: 52};
  const annotations = small ? [] : names(figure, width - margin.l - margin.r, height - margin.t - margin.b, looks);
  if (!small) add(leader(figure.named));
  const layout = {
    height, margin, hovermode: "closest", annotations,
    xaxis: {...axis(looks), title: titled("arithmetic intensity (FLOP a byte)", width), ...powers(figure.across, power => String(Number((10 ** power).toPrecision(1))))},
    yaxis: {...axis(looks), title: titled("arithmetic done (FLOP/s)", 320), ...powers(figure.up, rate)},
  };
  return {traces, layout, legend: [...legend.values()], caption: small ? listed(figure.roofs) : ""};
}
