// Guess: a number that a person wrote, and a sentence about it. Knows no page; says what `ridgeline learn` says.

const NEAR = 1.25, FAR = 2; // lab/learn/chapter.py has the same, which a test holds

export function parsed(text) {
  // A number above 0, or null. Some write the decimal point as a comma.
  const value = Number(text.trim().replace(",", "."));
  return text.trim() !== "" && Number.isFinite(value) && value > 0 ? value : null;
}

export function three(value) {
  // Three significant digits, as Python's :.3g writes them: half goes to the even digit.
  const [digits, exponent] = value.toExponential(60).split("e");
  const tie = /^50*$/.test(digits.slice(4)) && Number(digits[3]) % 2 === 0;
  const kept = tie ? `${digits.slice(0, 4)}e${exponent}` : value.toExponential(2), at = Number(kept.split("e")[1]);
  if (at >= -4 && at < 3) return String(Number(kept));
  return `${Number(kept.split("e")[0])}e${at < 0 ? "-" : "+"}${String(Math.abs(at)).padStart(2, "0")}`;
}

// Of .25 and .75 alone a double is exactly in the middle of two tenths; Python goes to the even one.
const tenth = value => (value % 1 === .25 ? value - .01 : value).toFixed(1);

// Ratios count, not differences: half and double are equally wrong.
export const off = (guess, answer) => Math.max(guess / answer, answer / guess);
export const near = (guess, answer) => off(guess, answer) <= NEAR;

export function judged(guess, answer, unit, who = "this machine") {
  const told = `You guessed ${three(guess)}${unit}, ${who} says ${three(answer)}${unit}`;
  if (answer <= 0) return `${told}.`;
  if (near(guess, answer)) return `${told}: well reckoned.`;
  const way = guess > answer ? "high" : "low", times = tenth(off(guess, answer));
  if (off(guess, answer) <= FAR) return `${told}: the right size, ${times} times too ${way}.`;
  return `${told}: ${times} times too ${way}. What does the rule you used leave out?`;
}
