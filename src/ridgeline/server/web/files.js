// Files: what a person opens, drops or takes away. Knows sizes and JSON; knows no recording and no run.

import {at, element} from "./dom.js";
import {number} from "./words.js";

const LARGEST = 2 ** 26; // bytes; larger ones would stop the page for seconds

let take, fail;

async function read(file) {
  try {
    if (file.size > LARGEST) throw new Error(`${file.name}: ${number(file.size / 2 ** 20)} MiB are too many for a page`);
    const content = inside(await file.text());
    let data;
    try { data = JSON.parse(content); } catch { throw new Error(`${file.name}: is not JSON`); }
    take(data, content);
  } catch (error) {
    fail(error);
  }
}

function inside(text) {
  // What is in a saved page. It is parsed as a document of its own, in which nothing runs and nothing is fetched.
  if (!text.trimStart().startsWith("<")) return text;
  return new DOMParser().parseFromString(text, "text/html").getElementById("saved")?.textContent ?? text;
}

export function offer(button, zone) {
  // A button that asks for a file, and a place to drop one.
  button.addEventListener("click", () => {
    at("file").value = ""; // or the same file could not be opened again
    at("file").click();
  });
  zone.addEventListener("dragover", event => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", event => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files.length) read(event.dataTransfer.files[0]);
  });
}

export function save(content, name) {
  const url = URL.createObjectURL(new Blob([content], {type: "application/json"}));
  element("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export function open(taken, failed) {
  // taken(data, content): what becomes of a file; it throws an Error in words for a person, which failed(error) shows.
  [take, fail] = [taken, failed];
  at("file").addEventListener("change", () => {
    if (at("file").files.length) read(at("file").files[0]);
  });
}
