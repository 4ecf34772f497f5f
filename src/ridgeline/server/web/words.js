// Words: numbers as people read them. Knows no page.

// Made once: a new one for each number took most of a live event's time.
const FORMATS = [0, 1, 2, 3].map(digits =>
  new Intl.NumberFormat("en", {minimumFractionDigits: digits, maximumFractionDigits: digits}));

export const number = (value, digits = 0) =>
  value == null || Number.isNaN(value) ? "–" : FORMATS[digits].format(value).replaceAll(",", "\u202f");

export function ms(value) {
  if (value == null) return "–";
  if (value >= 1000) return `${number(value / 1000, value < 10000 ? 2 : 1)} s`;
  return `${number(value, value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
}

export const percent = (share, digits = 0) => share == null ? "–" : `${number(100 * share, digits)} %`;

export const rate = value => value == null ? "–" : number(value, value < 10 && !Number.isInteger(value) ? 1 : 0);

export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
