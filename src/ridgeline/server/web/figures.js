// Figures: bars and lines of a report, as traces and layout for the library and entries for a legend. Knows no page.
// A file's words reach the library through `words`, which it would take for markup otherwise.

import {axis} from "./plots.js";
import {number} from "./words.js";

// Okabe and Ito's colours for the colour-blind, in shades that show on white and on near-black.
const COLOURS = ["#0083c9", "#e0711a", "#009e73", "#cc66a3", "#b09600", "#8a6fdf", "#a9744a", "#3aa5a5"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "cross", "hexagon", "triangle-down"];
// For every eight lines, as then the colours come again.
const DASHES = ["solid", "dash", "dot", "dashdot"], HOLLOW = ["", "-open", "-dot", "-open-dot"];
const VERDICTS = {pays: "#009e73", costs: "#d6504a", "undecided here": "#8a94a3", "too few rounds": "#8a94a3", start: "#0083c9",
  WRONG: "#cc66a3"};

const NARROW = 560; // pixels; below that words are broken earlier

export const narrow = width => width < NARROW;
export const colour = i => COLOURS[i % COLOURS.length];
export const symbol = i => SYMBOLS[i % SYMBOLS.length];
const nth = (list, i) => list[Math.floor(i / COLOURS.length) % list.length];

export const words = text => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\n", "<br>");

export function broken(text, most) {
  // Into lines of at most so many letters, between words.
  const lines = [""];
  for (const word of String(text).split(" ")) {
    const last = lines.at(-1);
    if (last && last.length + 1 + word.length > most) lines.push(word); else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  return lines.map(words).join("<br>");
}

export function titled(text, width) {
  return {text: broken(text, Math.floor(width / 8)), standoff: 8, font: {size: 12}};
}

function bars({across, bars}, looks, width) {
  const groups = [...new Set(bars.map(bar => bar.group))], most = Math.max(...bars.map(bar => bar.high ?? bar.value), 0);
  const paint = group => VERDICTS[group] ?? colour(groups.indexOf(group)), small = narrow(width);
  const traces = [], legend = [];
  groups.forEach(group => {
    const mine = bars.map((bar, i) => [bar, i]).filter(([bar]) => bar.group === group);
    const y = mine.map(([, i]) => i), spread = side => mine.map(([bar]) => Math.abs((bar[side] ?? bar.value) - bar.value));
    const hovertext = mine.map(([bar]) => broken(bar.hint, small ? 36 : 80)), shared = {y, hovertext, hoverinfo: "text", name: words(group)};
    legend.push({name: group, colour: paint(group), symbol: "square", dash: null, traces: [traces.length, traces.length + 1]});
    const isSpread = mine.some(([bar]) => typeof bar.low === "number");
    traces.push({...shared, type: "bar", orientation: "h", x: mine.map(([bar]) => bar.value), marker: {color: paint(group)}, width: .72,
      ...(isSpread && {error_x: {type: "data", symmetric: false, array: spread("high"), arrayminus: spread("low"), color: looks.ink, thickness: 1.5, width: 4}})});
    traces.push({...shared, type: "scatter", mode: "text", x: mine.map(([bar]) => bar.high ?? bar.value), textposition: "middle right",
      text: mine.map(([bar]) => `\u2009\u2009${words(bar.label)}`), cliponaxis: false, hoverinfo: "skip"});
  });
  const names = bars.map(bar => broken(bar.name, small ? 16 : 40));
  const layout = {
    height: 64 + (small ? 38 : 34) * bars.length, margin: {l: 8, r: 8, t: 4, b: 48}, barmode: "overlay", hovermode: "closest",
    xaxis: {...axis(looks), title: titled(across, width), range: [0, most * (small ? 1.55 : 1.25) || 1], nticks: small ? 4 : 8},
    yaxis: {...axis(looks), tickvals: bars.map((_, i) => i), ticktext: names, range: [bars.length - .4, -.6], automargin: true, showgrid: false,
      tickfont: {size: small ? 11 : 13, color: looks.ink}, ticks: "outside", tickcolor: "rgba(0,0,0,0)"},
  };
  return {traces, layout, legend: groups.length > 1 ? legend : []};
}

function ticks(values) {
  // Of a logarithmic axis of these values: round ones, the more of a power of ten the fewer powers there are.
  const low = Math.min(...values), high = Math.max(...values), times = high / low, found = [];
  const steps = times > 1e4 ? [1] : times > 8 ? [1, 2, 5] : [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];
  const [first, last] = [low, high].map(value => Math.max(-12, Math.min(15, Math.floor(Math.log10(value)))));
  for (let power = first; power <= last + 1; power += 1) found.push(...steps.map(step => step * 10 ** power));
  return {tickvals: found, ticktext: found.map(value => value < 10 ? String(Number(value.toPrecision(2))) : number(value))};
}

function lines({across, up, log, series}, looks, width) {
  const legend = [], small = narrow(width);
  const traces = series.map(({name, marks, dash}, i) => {
    const style = dash || nth(DASHES, i), mark = symbol(i) + nth(HOLLOW, i);
    legend.push({name, colour: colour(i), symbol: symbol(i), dash: style, traces: [i]});
    return {
      type: "scatter", mode: `lines+markers${marks.some(one => one.label) ? "+text" : ""}`, name: words(name), cliponaxis: false,
      x: marks.map(one => typeof one.x === "string" ? words(one.x) : one.x), y: marks.map(one => one.y),
      text: marks.map(one => words(one.label)), textposition: "top left", hovertext: marks.map(one => `<b>${words(name)}</b><br>${words(one.hint)}`), hoverinfo: "text",
      line: {color: colour(i), width: 2, dash: style}, marker: {symbol: mark, size: small ? 7 : 9, color: colour(i)},
    };
  });
  const isNamed = series.some(({marks}) => marks.some(one => typeof one.x === "string"));
  const logarithmic = log && {type: "log", ...ticks(series.flatMap(({marks}) => marks.map(one => one.y)))};
  const layout = {
    height: small ? 340 : 420, margin: {l: 8, r: 20, t: 16, b: small ? 64 : 52}, hovermode: "closest",
    xaxis: {...axis(looks), title: titled(across, width), rangemode: "tozero", automargin: true, ...(isNamed && {type: "category"})},
    yaxis: {...axis(looks), title: titled(up, 320), rangemode: "tozero", automargin: true, ...logarithmic},
  };
  return {traces, layout, legend: series.length > 1 ? legend : []};
}

export const FIGURES = {bars, lines};
