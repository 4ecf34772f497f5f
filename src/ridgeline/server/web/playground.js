// Playground: a prompt or a conversation in, the answer token by token out. Knows requests; knows no chart.

import {at, copy, element} from "./dom.js";
import {door, watch} from "./door.js";
import {curl, path, python, request, written} from "./sampling.js";
import {ask, events} from "./server.js";
import {entries, open as openTokens, pieces} from "./tokens.js";
import {shown} from "./waterfall.js";
import {ms, number, rate} from "./words.js";

const REASONS = {stop: "stop", length: "max tokens", stopped: "you"};
let controller = null; // of the request that runs
let said = []; // the conversation so far

const chatting = () => door.chat && document.querySelector("[name=mode]:checked").value === "chat";

function messages() {
  // The conversation with what stands in the field as its newest message; null where no chat is wanted.
  if (!chatting()) return null;
  const system = at("system").value.trim();
  return [...(system ? [{role: "system", content: system}] : []), ...said, {role: "user", content: at("prompt").value}];
}

async function generate() {
  if (!door.serving || controller) return;
  controller = new AbortController();
  const asked = messages(), run = begin(asked);
  try {
    const body = written({...request(asked), return_token_ids: true});
    const head = {"Content-Type": "application/json"};
    for await (const event of events(await ask(path(asked), {method: "POST", headers: head, signal: controller.signal, body}))) {
      if (event.error) throw Object.assign(new Error(event.error.message), event.error);
      run.take(event);
    }
  } catch (error) {
    if (error.name === "AbortError") run.finish = "stopped"; else fail(error);
  }
  controller = null;
  end(run);
}

function begin(asked) {
  const made = element("span", {class: asked ? "turn assistant made" : "made"});
  const prompt = element("span", {class: asked ? "turn user" : "asked", text: at("prompt").value});
  if (asked && said.length) at("output").append(prompt, made); else at("output").replaceChildren(prompt, made);
  at("output").classList.remove("empty");
  at("output").setAttribute("aria-busy", "true");
  for (const id of ["error", "why"]) at(id).hidden = true;
  document.querySelectorAll("[aria-invalid]").forEach(field => field.removeAttribute("aria-invalid"));
  at("halt").disabled = false;
  at("spoken").textContent = "Generating";
  const run = {
    asked, made, start: performance.now(), id: null, first: null, last: null, tokens: 0, known: [], finish: null,
    take(event) {
      const choice = event.choices[0];
      this.id = event.id;
      if (!choice) return;
      this.finish = choice.finish_reason ?? this.finish;
      const count = choice.token_ids?.length ?? 0;
      if (count) {
        this.last = performance.now();
        this.first ??= this.last;
        this.tokens += count;
      }
      const text = choice.text ?? choice.delta?.content ?? "";
      this.known.push(...entries(choice.logprobs));
      if (text) this.made.append(...pieces(text, this.known.splice(0)));
      show(this);
    },
  };
  show(run);
  settle();
  return run;
}

function show(run) {
  const seconds = (run.last - run.first) / 1000;
  at("tokens").textContent = run.tokens ? number(run.tokens) : "–";
  at("rate").textContent = run.tokens > 1 && seconds > 0 ? rate((run.tokens - 1) / seconds) : "–";
  at("ttft").textContent = run.first === null ? "–" : ms(run.first - run.start);
  at("finish").textContent = run.finish ? REASONS[run.finish] ?? run.finish : "–";
}

function end(run) {
  show(run);
  at("output").setAttribute("aria-busy", "false");
  at("output-help").hidden = !at("output").querySelector(".token");
  at("halt").disabled = true;
  at("copy-text").disabled = run.tokens === 0;
  at("spoken").textContent = run.finish ? `Finished by ${REASONS[run.finish] ?? run.finish}, ${run.tokens} tokens` : "Failed";
  if (run.asked && run.tokens) {
    said.push(run.asked.at(-1), {role: "assistant", content: run.made.textContent});
    at("prompt").value = "";
    at("prompt").focus();
  }
  settle();
  if (run.id) explain(run.id);
}

async function explain(id) {
  // The waterfall of the answer that was just given; a server that keeps none is no error. It is whole a moment after
  // the answer's last byte, which is part of it.
  try {
    const look = async () => (await ask(`/v1/requests/${encodeURIComponent(id)}`, {cache: "no-store"})).json();
    let request = await look();
    for (let again = 0; again < 5 && request.state === "running"; again += 1) {
      await new Promise(resolve => setTimeout(resolve, 100));
      request = await look();
    }
    if (controller) return; // the next one is under way
    at("why-body").replaceChildren(shown(request));
    at("why").hidden = false;
  } catch {
    at("why").hidden = true;
  }
}

function fail(error) {
  at("error-text").textContent = error.message || String(error);
  at("error").hidden = false;
  const name = error.param && error.param.split(/[.[]/)[0];
  const field = name && at({messages: "prompt", max_completion_tokens: "max_tokens", top_logprobs: "logprobs"}[name] ?? name);
  if (field) { field.setAttribute("aria-invalid", "true"); field.focus(); }
  if (!error.type || error.type === "service_unavailable" || error.status === 401) watch(); // it may start again, or be gone
}

function settle() {
  // What the form looks like in the state in which the server and the request are.
  const chat = chatting();
  at("modes").hidden = !door.chat;
  at("system-field").hidden = !chat;
  at("afresh").hidden = !chat;
  at("afresh").disabled = controller !== null || !said.length;
  at("prompt-label").textContent = chat ? "Message" : "Prompt";
  at("generate").textContent = chat ? "Send" : "Generate";
  at("generate").disabled = !door.serving || controller !== null;
  at("output-title").textContent = chat ? "Conversation" : "Output";
  // In a conversation the field stands below what was said; moved, so that the keyboard goes the same way as the eye.
  const [upper, lower] = chat ? [at("answer"), at("ask")] : [at("ask"), at("error")];
  if (upper.nextElementSibling !== lower) at("desk").prepend(at("ask")), chat && at("desk").prepend(at("answer"));
  if (!chat && at("error").nextElementSibling !== at("answer")) at("error").after(at("answer"));
}

function afresh() {
  said = [];
  at("output").classList.add("empty");
  at("output").textContent = chatting() ? "The conversation appears here." : "The continuation appears here, token by token.";
  for (const id of ["output-help", "why"]) at(id).hidden = true;
  if (chatting() && at("prompt").value === at("prompt").defaultValue) at("prompt").value = "";
  settle();
}

export function open() {
  openTokens();
  at("settings").open = !matchMedia("(max-width: 860px)").matches;
  at("form").addEventListener("submit", event => { event.preventDefault(); generate(); });
  at("halt").addEventListener("click", () => controller?.abort());
  at("afresh").addEventListener("click", afresh);
  document.querySelectorAll("[name=mode]").forEach(mode => mode.addEventListener("change", afresh));
  at("copy-curl").addEventListener("click", () => copy(curl(messages()), at("copy-curl")));
  at("copy-python").addEventListener("click", () => copy(python(messages()), at("copy-python")));
  at("copy-text").addEventListener("click", () => copy(at("output").innerText, at("copy-text")));
  document.addEventListener("doorchange", settle);
  at("form").addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) generate();
  });
  document.addEventListener("keydown", event => { if (event.key === "Escape") controller?.abort(); });
}
