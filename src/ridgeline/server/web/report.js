// Report: the section that shows a run file: its sentences, figures and numbers, and where they are from. Knows how a
// report is written; judges no number.

import {at, drawn, element} from "./dom.js";
import {FIGURES} from "./figures.js";
import {offer, save} from "./files.js";
import {frame, loaded, shades} from "./plots.js";
import {roofs} from "./roofs.js";

const VERSION = 1, KINDS = {...FIGURES, roofs};

let figures = []; // of the report that is shown: {figure, plot, legend, caption, hidden: names}
let text = null; // of its run file
let widths = ""; // of the plots as they were drawn

// --- what a report is ---------------------------------------------------------------------------------------------

const isText = value => typeof value === "string";
const areTexts = value => Array.isArray(value) && value.every(isText);

function check(run) {
  // Raises an Error in words for a person; a file may be anything.
  if (run === null || typeof run !== "object" || run.provenance === null || typeof run.provenance !== "object") {
    throw new Error("this is not a recording of Ridgeline's, and no run file either");
  }
  const report = run.report;
  if (report === undefined) {
    throw new Error("this run file has no report in it: it is older, or of a kind without one. `ridgeline report RUN.json` makes a page of it, which opens here");
  }
  if (report?.version !== VERSION) throw new Error(`the report has version ${report?.version}; this page reads version ${VERSION}`);
  const isSection = one => [one?.title, one?.question].every(isText) && [one.readings, one.headings].every(areTexts)
    && Array.isArray(one.rows) && one.rows.every(areTexts);
  if (![report.title, report.subtitle].every(isText) || ![report.notes, report.remarks].every(areTexts)
    || !Array.isArray(report.sections) || !report.sections.every(isSection)) throw new Error("the report is damaged; `ridgeline report RUN.json` makes it anew");
}

// --- words and numbers --------------------------------------------------------------------------------------------

const paragraphs = (told, attributes = {}) => told.map(one => element("p", {...attributes, text: one}));

function card(section) {
  const made = element("section", {class: "card report", "aria-label": section.title},
    element("h2", {text: section.title}), element("p", {class: "dim", text: section.question}));
  if (section.figure) made.append(...shownFigure(section));
  made.append(...paragraphs(section.readings, {class: "reading"}));
  if (section.rows.length) made.append(table(section));
  return made;
}

function table({title, headings, rows, open_table}) {
  const cell = (one, i) => element(i ? "td" : "th", {text: one, scope: i ? null : "row", class: one.length > 28 ? "long" : null});
  const head = element("tr", {}, ...headings.map(one => element("th", {scope: "col", text: one})));
  const body = rows.map(row => element("tr", {}, ...row.map(cell)));
  return element("details", open_table ? {open: ""} : {}, element("summary", {text: "The numbers"}),
    element("div", {class: "wide", tabindex: 0, role: "region", "aria-label": `${title}: the numbers`},
      element("table", {}, element("thead", {}, head), element("tbody", {}, ...body))));
}

function source(provenance) {
  const joined = (value, sign) => Array.isArray(value) ? value.join(sign) : "";
  const libraries = Object.entries(provenance.libraries ?? {}).map(([name, version]) => `${name} ${version}`);
  const facts = {
    Machine: `${provenance.cpu}, ${provenance.cores} cores, ${provenance.system}`, GPUs: joined(provenance.gpus, ", ") || "none",
    Command: joined(provenance.command, " "), Date: provenance.started ?? "unknown",
    Commit: (provenance.commit ?? "unknown") + (provenance.dirty ? " with changes" : ""), Libraries: joined(libraries, ", "),
  };
  return element("dl", {class: "facts"}, ...Object.entries(facts).flatMap(([name, value]) =>
    [element("dt", {text: name}), element("dd", {}, element("code", {text: value}))]));
}

// --- figures ------------------------------------------------------------------------------------------------------

function shownFigure({title, figure}) {
  const plot = element("div", {class: "figure", role: "img", "aria-label": title}), legend = element("ul", {class: "legend", "aria-label": `Legend of: ${title}`});
  const caption = element("p", {class: "dim caption"});
  figures.push({figure, plot, legend, caption, hidden: new Set()});
  return [legend, plot, caption];
}

const OUTLINES = {
  circle: "M4 8a4 4 0 1 0 8 0a4 4 0 1 0-8 0", square: "M4 4h8v8H4z", diamond: "M8 3l5 5-5 5-5-5z", "triangle-up": "M8 3l5 9H3z",
  "triangle-down": "M8 13l5-9H3z", x: "M4 4l8 8M12 4l-8 8", cross: "M8 3v10M3 8h10", hexagon: "M5 3h6l3 5-3 5H5l-3-5z",
  star: "M8 2l1.8 4h4.2l-3.4 2.8 1.3 4.4L8 10.6l-3.9 2.6 1.3-4.4L2 6h4.2z", "diamond-open": "M8 3l5 5-5 5-5-5z",
};

function sign({colour, symbol, dash}) {
  const made = drawn("svg", {viewBox: "-8 0 32 16", "aria-hidden": "true"});
  const gaps = {dash: "5 3", dot: "1.5 3", dashdot: "6 3 1.5 3"}[dash];
  if (dash) made.append(drawn("path", {d: "M-8 8h32", stroke: colour, "stroke-width": 2, fill: "none", ...(gaps && {"stroke-dasharray": gaps})}));
  if (symbol) {
    const isOpen = symbol.endsWith("-open") || symbol === "x" || symbol === "cross";
    made.append(drawn("path", {d: OUTLINES[symbol], stroke: colour, "stroke-width": isOpen ? 2.5 : 0, fill: isOpen ? "none" : colour}));
  }
  return made;
}

function legends(one, entries) {
  // A click hides what an entry names, and brings it back.
  one.legend.replaceChildren(...entries.map(entry => {
    const button = element("button", {type: "button", class: "small", "aria-pressed": String(!one.hidden.has(entry.name))}, sign(entry), entry.name);
    button.addEventListener("click", () => {
      if (!one.hidden.delete(entry.name)) one.hidden.add(entry.name);
      button.setAttribute("aria-pressed", String(!one.hidden.has(entry.name)));
      draw(one);
    });
    return element("li", {}, button);
  }));
}

function draw(one) {
  const width = one.plot.clientWidth, colours = shades();
  try {
    const {traces, layout, legend, caption = ""} = KINDS[one.figure.kind](one.figure, colours, width);
    const gone = new Set(legend.filter(({name}) => one.hidden.has(name)).flatMap(entry => entry.traces));
    Plotly.react(one.plot, traces.map((trace, i) => ({...trace, visible: !gone.has(i)})), {...frame(colours), width, ...layout}, {displayModeBar: false});
    one.caption.textContent = caption;
    if (!one.legend.children.length) legends(one, legend);
  } catch (error) {
    one.plot.replaceChildren(element("p", {class: "dim", text: `This figure cannot be drawn: ${error.message}`}));
  }
}

async function drawAll() {
  if (!at("report").clientWidth || !figures.length) return;
  try {
    await loaded();
  } catch (error) {
    for (const {plot} of figures) plot.replaceChildren(element("p", {class: "dim", text: error.message}));
    return;
  }
  widths = figures.map(({plot}) => plot.clientWidth).join();
  figures.forEach(draw);
}

// --- the section --------------------------------------------------------------------------------------------------

export function take(run, content) {
  check(run);
  const {report} = run;
  [figures, text] = [[], content];
  at("report-error").hidden = true;
  at("report").replaceChildren(element("h2", {class: "title", text: report.title}), element("p", {class: "dim", text: report.subtitle}),
    ...paragraphs(report.notes), ...report.sections.map(card),
    element("section", {class: "source dim", "aria-label": "Where the numbers are from"}, ...paragraphs(report.remarks), source(run.provenance)));
  at("download-run").disabled = false;
  drawAll();
}

export function failed(error) {
  at("report-error").hidden = false;
  at("report-error").firstElementChild.textContent = error.message;
}

export function enter() { drawAll(); }

export function open() {
  offer(at("open-run"), at("report"));
  at("download-run").addEventListener("click", () => save(text, "ridgeline-run.json"));
  document.addEventListener("themechange", drawAll);
  new ResizeObserver(() => { if (figures.map(({plot}) => plot.clientWidth).join() !== widths) drawAll(); }).observe(at("report"));
}
