// Charts: the live numbers over time, drawn by the plotly library, which is fetched when they are first wanted.

import {at, colour, element} from "./dom.js";
import {ms, percent, rate} from "./words.js";

const REDRAW_MS = 1000; // a chart costs milliseconds, and the machine may be the one that serves

// Each: title, how its numbers read, and lines [name, of(event), dash]. ceiling: said beside the title.
const CHARTS = [
  {title: "Tokens a second", say: rate, lines: [["new", e => e.tokens_per_s], ["prompt", e => e.prompt_tokens_per_s, "dot"]]},
  {title: "Batch", say: rate, lines: [["running", e => e.running], ["waiting", e => e.waiting, "dot"], ["rows a step", e => e.mean_rows, "dash"]]},
  {title: "KV blocks", say: rate, lines: [["in use", e => e.kv_blocks, "solid", "tozeroy"], ["all", e => e.num_blocks, "dot"]]},
  {title: "Bandwidth and waste", say: percent, share: true, ceiling: e => e.mbu_of ? `MBU: of ${e.mbu_of}` : "no ceiling known",
    lines: [["MBU", e => e.mbu], ["prefix hits", e => e.prefix_hit_rate, "dash"], ["padding", e => e.padding, "dot"]]},
  {title: "First token after", say: ms, unit: " ms", lines: [["p50", e => e.ttft_ms?.p50], ["p95", e => e.ttft_ms?.p95, "dot"]]},
  {title: "Between tokens", say: ms, unit: " ms", lines: [["p50", e => e.itl_ms?.p50], ["p95", e => e.itl_ms?.p95, "dot"], ["step", e => e.step_ms, "dash"]]},
  {title: "Whole answer after", say: ms, unit: " ms", lines: [["p50", e => e.e2e_ms?.p50], ["p95", e => e.e2e_ms?.p95, "dot"]]},
  {title: "Preemptions", say: rate, lines: [["since the start", e => e.preemptions]]},
];

let library = null; // the promise of it

function loaded() {
  library ??= new Promise((resolve, reject) => {
    const script = element("script", {src: "/assets/plotly.min.js"});
    script.onload = resolve;
    script.onerror = () => { library = null; script.remove(); reject(new Error("the chart library cannot be loaded")); };
    document.head.append(script);
  });
  return library;
}

export class Charts {
  constructor(history) {
    this._history = history;
    this._drawn = 0;
    this._seconds = 60;
    this._plots = CHARTS.map(chart => this._card(chart));
    document.addEventListener("themechange", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(at("charts"));
  }

  _card(chart) {
    const plot = element("div", {class: "plot", role: "img"}), beside = element("small");
    at("charts").append(element("section", {class: "card", "aria-label": chart.title},
      element("h2", {text: chart.title}, beside), plot));
    return {chart, plot, beside};
  }

  span(seconds) {
    this._seconds = seconds;
    this.draw();
  }

  tick() {
    // After an event: once a second is enough for the eye.
    if (performance.now() - this._drawn >= REDRAW_MS) this.draw(({bottom, top}) => bottom > 0 && top < innerHeight);
  }

  async draw(seen = () => true) {
    // seen: whether somebody sees what stands there.
    this._drawn = performance.now();
    if (!this._history.newest || !at("charts").clientWidth) return;
    await loaded();
    const looks = {ink: colour("ink"), soft: colour("soft"), grid: colour("grid"), card: colour("card"), line: colour("line"),
      series: [1, 2, 3].map(i => colour(`series-${i}`))};
    for (const {chart, plot, beside} of this._plots) {
      if (!plot.data || seen(plot.getBoundingClientRect())) this._draw(chart, plot, beside, looks);
    }
  }

  _draw(chart, plot, beside, looks) {
    const since_s = this._history.newest.at_s - this._seconds;
    const traces = chart.lines.map(([name, of, dash = "solid", fill = "none"], i) => {
      const [x, y] = this._history.column(of, since_s);
      return {name, x, y, type: "scatter", mode: "lines", fill, hovertemplate: `%{y:${chart.share ? ".1%" : ",.4~g"}}${chart.unit ?? ""}`,
        line: {color: looks.series[i], dash, width: 2}};
    });
    Plotly.react(plot, traces, layout(chart, looks, [-this._seconds, 0], plot.clientWidth), {displayModeBar: false});
    const newest = this._history.newest;
    beside.textContent = chart.ceiling?.(newest) ?? "";
    plot.ariaLabel = `${chart.title}: ${chart.lines.map(([name, of]) => `${name} ${chart.say(of(newest))}`).join(", ")}`;
  }
}

function layout(chart, looks, range, width) {
  const axis = {gridcolor: looks.grid, linecolor: looks.line, zeroline: false, fixedrange: true, tickfont: {size: 11, color: looks.soft}};
  return {
    margin: {l: 46, r: 8, t: 6, b: 24}, width, height: 190, hovermode: "x unified", uirevision: "live",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: looks.ink, size: 12},
    hoverlabel: {bgcolor: looks.card, bordercolor: looks.line, font: {color: looks.ink}},
    showlegend: true, legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: {size: 11, color: looks.soft}},
    xaxis: {...axis, range, nticks: 4, ticksuffix: " s"},
    yaxis: {...axis, rangemode: "tozero", nticks: 5, ticksuffix: chart.unit ?? "",
      ...(chart.share ? {range: [0, 1.02], tickformat: ".0%"} : {autorangeoptions: {include: 1}})},
  };
}
