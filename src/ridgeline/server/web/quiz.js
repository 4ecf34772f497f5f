// Quiz: the course's questions, each with a guess and then what reference machines said. Knows course.json, which
// scripts/page_course.py writes from the course and from records/.

import {at, copy, element} from "./dom.js";
import {judged, near, parsed} from "./guess.js";

const guesses = new Map(); // by chapter, until the page is left
const APART = 7; // per cent of the line, as wide as a mark on a phone

let questions = null;

export async function load() {
  if (questions) return;
  try {
    const response = await fetch("/assets/course.json");
    if (!response.ok) throw new Error();
    questions = await response.json();
    at("quiz").replaceChildren(...questions.map(card));
    score();
  } catch {
    at("quiz-score").textContent = "The questions cannot be loaded; open this section again to try once more.";
  }
}

function card(question) {
  const {number, title} = question, name = `guess-${number}`;
  const field = element("input", {id: name, inputmode: "decimal", autocomplete: "off", "aria-describedby": `${name}-wrong`});
  const wrong = element("p", {id: `${name}-wrong`, class: "dim", role: "status"}), answer = element("div", {"aria-live": "polite"});
  const form = element("form", {class: "guessing", novalidate: ""}, element("label", {for: name, text: "Your guess"}), field,
    element("span", {class: "unit", text: question.unit.trim()}), element("button", {class: "small", text: "Guess"}), wrong);
  const line = command(number);
  form.addEventListener("submit", event => {
    event.preventDefault();
    const guess = parsed(field.value);
    field.setAttribute("aria-invalid", String(guess === null));
    wrong.textContent = guess === null ? "The answer is a number above 0." : "";
    if (guess === null) return field.focus();
    guesses.set(number, guess);
    answer.replaceChildren(lane(guess, question), ...question.answers.map((one, i) => said(guess, one, question.unit, i)));
    line.firstElementChild.textContent = written(number);
    score();
  });
  return element("article", {class: "card", role: "listitem", "aria-labelledby": `${name}-title`},
    element("h3", {id: `${name}-title`}, element("span", {class: "count", text: String(number)}), title),
    element("p", {class: "question", text: question.question}),
    element("details", {}, element("summary", {text: "How to reckon it"}), element("p", {text: question.hint})),
    form, answer, element("p", {class: "dim", text: `On your own machine (${question.page} tells the rest):`}), line);
}

const written = number => `ridgeline learn ${number}${guesses.has(number) ? ` --guess ${guesses.get(number)}` : ""}`;

function command(number) {
  const button = element("button", {class: "small", type: "button", text: "Copy", "aria-label": `Copy the command of question ${number}`});
  button.addEventListener("click", () => copy(written(number), button));
  return element("div", {class: "command"}, element("code", {text: written(number)}), button);
}

const badge = i => element("i", {class: "badge", text: String.fromCharCode(65 + i)});

function said(guess, {machine, answer, told}, unit, i) {
  return element("div", {class: "said"}, badge(i), element("p", {}, element("b", {text: judged(guess, answer, unit, machine)}), " ",
    element("span", {class: "dim", text: told})));
}

function lane(guess, {answers}) {
  // Where they lie on a line that doubles; it says nothing that the sentences below do not.
  const all = [guess, ...answers.map(one => one.answer)], low = Math.min(...all) / 1.5, high = 1.5 * Math.max(...all);
  const marks = [element("i", {class: "badge yours", text: "?"}), ...answers.map((_, i) => badge(i))];
  const places = all.map((value, i) => [100 * Math.log(value / low) / Math.log(high / low), marks[i]]).sort((a, b) => a[0] - b[0]);
  places.reduce((last, [percent, mark]) => {
    const place = Math.max(percent, last + APART); // beside one another where they are the same
    mark.style.left = `${place}%`;
    return place;
  }, 0);
  return element("div", {class: "line", "aria-hidden": "true"}, ...marks);
}

function score() {
  const right = questions.filter(({number, answers}) => guesses.has(number) && answers.some(one => near(guesses.get(number), one.answer)));
  at("quiz-score").textContent = guesses.size ? `${guesses.size} of ${questions.length} guessed, ${right.length} well reckoned` : `None of ${questions.length} guessed yet`;
}
