// Plots: the plotly library, fetched when a chart is first wanted, and what all charts share. Knows no chart.

import {colour, element} from "./dom.js";

let library = null; // the promise of it

export function loaded() {
  library ??= new Promise((resolve, reject) => {
    if (globalThis.Plotly) return resolve(); // a saved page has it in itself
    const script = element("script", {src: "/assets/plotly.min.js"});
    script.onload = resolve;
    script.onerror = () => { library = null; script.remove(); reject(new Error("the chart library cannot be loaded")); };
    document.head.append(script);
  });
  return library;
}

export const shades = () => ({
  ink: colour("ink"), soft: colour("soft"), grid: colour("grid"), card: colour("card"), line: colour("line"),
  series: [1, 2, 3].map(i => colour(`series-${i}`)),
});

export const axis = looks =>
  ({gridcolor: looks.grid, linecolor: looks.line, zeroline: false, fixedrange: true, tickfont: {size: 11, color: looks.soft}});

export const frame = looks => ({
  showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: looks.ink, size: 12},
  hoverlabel: {bgcolor: looks.card, bordercolor: looks.line, font: {color: looks.ink}, align: "left"},
});
