// Sampling: the form's fields as a request's body, and as commands to copy. Knows fields; sends nothing.

import {at} from "./dom.js";
import {door} from "./door.js";
import {hasKey} from "./server.js";

const NUMBERS = ["max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty",
  "repetition_penalty"];
const OURS = ["top_k", "min_p", "repetition_penalty"]; // what OpenAI's client knows only as extra_body
const ALTERNATIVES = 5;

const unescaped = line => line.replace(/\\([nt\\])/g, (_, c) => ({n: "\n", t: "\t", "\\": "\\"})[c]);

// A seed may be larger than a JavaScript number holds exactly, so it stays text until the JSON is written.
const valued = (name, text) =>
  name === "seed" && /^\d+$/.test(text) ? {exactly: text} : Number.isNaN(Number(text)) ? text : Number(text);

export const written = body => JSON.stringify(body).replace(/\{"exactly":"(\d+)"\}/g, "$1");

export function request(messages = null) {
  // messages: of a conversation; without, the prompt is continued.
  const body = messages ? {messages} : {prompt: at("prompt").value};
  for (const name of NUMBERS) {
    const text = at(name).value.trim();
    if (text !== "") body[name] = valued(name, text);
  }
  const stops = at("stop").value.split("\n").filter(line => line !== "").map(unescaped);
  if (stops.length) body.stop = stops;
  if (at("logprobs").checked) Object.assign(body, messages ? {logprobs: true, top_logprobs: ALTERNATIVES} : {logprobs: ALTERNATIVES});
  return {...body, stream: true};
}

export const path = messages => messages ? "/v1/chat/completions" : "/v1/completions";

export function curl(messages) {
  const quoted = written(request(messages)).replaceAll("'", "'\\''");
  const head = hasKey() ? ` -H "Authorization: Bearer $RIDGELINE_API_KEY"` : "";
  return `curl -N ${location.origin}${path(messages)}${head} -H 'Content-Type: application/json' -d '${quoted}'`;
}

export function python(messages) {
  // For OpenAI's client. JSON's strings and numbers are Python's too; of the words here only true differs.
  const body = request(messages), extra = {};
  for (const name of OURS) if (name in body) { extra[name] = body[name]; delete body[name]; }
  const literal = value => written(value).replace(/^true$/, "True").replace(/^false$/, "False");
  const given = Object.entries({model: door.model, ...body}).map(([name, value]) => `    ${name}=${literal(value)},`);
  if (Object.keys(extra).length) given.push(`    extra_body=${written(extra)},`);
  const secret = hasKey() ? `os.environ["RIDGELINE_API_KEY"]` : `"none"`;
  const [route, piece] = messages ? ["chat.completions", "delta.content or \"\""] : ["completions", "text"];
  return [
    ...(hasKey() ? ["import os", ""] : []), "from openai import OpenAI", "",
    `client = OpenAI(base_url="${location.origin}/v1", api_key=${secret})`,
    `stream = client.${route}.create(`, ...given, ")", "for chunk in stream:",
    `    print(chunk.choices[0].${piece}, end="", flush=True)`, "",
  ].join("\n");
}
