// Charts: the live numbers over time. Knows what each shows; knows no stream.

import {at, element} from "./dom.js";
import {axis, frame, loaded, shades} from "./plots.js";
import {ms, percent, rate} from "./words.js";

const REDRAW_MS = 1000; // a chart costs milliseconds, and the machine may be the one that serves

const STYLES = ["solid", "dot", "dash"]; // of a chart's first, second and third line

// Each: title, how its numbers read, and lines [name, of(event)]. axis: how ticks read. ceiling: beside the title.
const SECONDS = {axis: {tickformat: "~s", ticksuffix: "s"}, say: value => ms(value == null ? null : 1000 * value)};
const SHARE = {axis: {range: [0, 1.02], tickformat: ".0%"}};
const seconds = (name, of) => [name, event => of(event) == null ? null : of(event) / 1000];
const CHARTS = [
  {title: "Tokens a second", say: rate, lines: [["new", e => e.tokens_per_s], ["prompt", e => e.prompt_tokens_per_s]]},
  {title: "Batch", say: rate, lines: [["running", e => e.running], ["waiting", e => e.waiting], ["rows", e => e.mean_rows]]},
  {title: "KV blocks", say: rate, fill: "tozeroy", lines: [["in use", e => e.kv_blocks], ["all", e => e.num_blocks]]},
  {title: "Bandwidth used", say: percent, ...SHARE, ceiling: e => e.mbu_of ? `of ${e.mbu_of}` : "no ceiling known; ridgeline calibrate measures it",
    lines: [["MBU", e => e.mbu]]},
  {title: "Prefix cache and padding", say: percent, ...SHARE,
    lines: [["prompt tokens found", e => e.prefix_hit_rate], ["padding", e => e.padding]]},
  {title: "Preemptions", say: rate, lines: [["since the start", e => e.preemptions]]},
  {title: "First token after", ...SECONDS, lines: [seconds("p50", e => e.ttft_ms?.p50), seconds("p95", e => e.ttft_ms?.p95)]},
  {title: "Between tokens", ...SECONDS,
    lines: [seconds("p50", e => e.itl_ms?.p50), seconds("p95", e => e.itl_ms?.p95), seconds("step", e => e.step_ms)]},
  {title: "Whole answer after", ...SECONDS, lines: [seconds("p50", e => e.e2e_ms?.p50), seconds("p95", e => e.e2e_ms?.p95)]},
];

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
    const plot = element("div", {class: "plot", role: "img", "aria-label": `${chart.title} over time`});
    const beside = element("small"), values = chart.lines.map(() => element("b"));
    const legend = chart.lines.map(([name], i) => element("li", {}, element("i"), `${name} `, values[i]));
    at("charts").append(element("section", {class: "card", "aria-label": chart.title},
      element("h2", {text: chart.title}, beside), element("ul", {class: "lines"}, ...legend), plot));
    return {chart, plot, beside, values};
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
    const looks = shades();
    for (const one of this._plots) {
      if (!one.plot.data || seen(one.plot.getBoundingClientRect())) this._draw(one, looks);
    }
  }

  _draw({chart, plot, beside, values}, looks) {
    const newest = this._history.newest, since_s = newest.at_s - this._seconds;
    const traces = chart.lines.map(([name, of], i) => {
      const [x, y] = this._history.column(of, since_s);
      values[i].textContent = chart.say(of(newest));
      return {name, x, y, type: "scatter", mode: "lines", fill: i ? "none" : chart.fill ?? "none",
        line: {color: looks.series[i], dash: STYLES[i], width: 2}};
    });
    Plotly.react(plot, traces, layout(chart, looks, [-this._seconds, 0], plot.clientWidth), {displayModeBar: false});
    beside.textContent = chart.ceiling?.(newest) ?? "";
  }
}

function layout(chart, looks, range, width) {
  const shared = axis(looks);
  return {
    ...frame(looks), margin: {l: 44, r: 8, t: 8, b: 24}, width, height: 156, hovermode: "x unified", uirevision: "live",
    xaxis: {...shared, range, nticks: 4, ticksuffix: " s"},
    yaxis: {...shared, rangemode: "tozero", nticks: 5, ...chart.axis},
  };
}
