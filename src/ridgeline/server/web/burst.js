// Burst: completions that are under way at once, and the tokens a second that they give together. Knows the API;
// knows no page.

import {ask, events} from "./server.js";

export const LEVELS = [1, 2, 4, 8, 16];
const NEW_TOKENS = 48;
const LEAST_ROUNDS = 3, MOST_ROUNDS = 7, ROUNDS_MS = 4000; // after which no round begins that is one of more than the least
const TOGETHER = {method: "POST", headers: {"Content-Type": "application/json"}};

let asked = 0; // prompts so far: no two are alike, so none is found in the prefix cache
const prompt = () => `Story ${asked += 1}. Once upon a time`;

export async function burst(prompts, tokens, signal) {
  // All prompts in one request, since a browser keeps only six connections to a server. Each goes on for all its tokens.
  // Resolves to {id, tokens_per_s, rows: in the steps that made them}.
  const body = JSON.stringify({prompt: prompts, max_tokens: tokens, temperature: 0, ignore_eos: true, stream: true,
    return_token_ids: true, timings: true, cache_salt: crypto.randomUUID?.() ?? String(Math.random())});
  const ended = [];
  let id = null, made = 0, first = null, last = null;
  for await (const event of events(await ask("/v1/completions", {...TOGETHER, signal, body}))) {
    if (event.error) throw Object.assign(new Error(event.error.message), event.error);
    id = event.id;
    for (const choice of event.choices) {
      const count = choice.token_ids?.length ?? 0;
      if (count) last = performance.now();
      first ??= last;
      made += count;
      if (choice.timings) ended.push(choice.timings);
    }
  }
  return {
    id,
    // Everyone's first token begins the clock and does not count, so that a constant step gives exactly as many times.
    tokens_per_s: 1000 * (made - prompts.length) / (last - first),
    rows: ended.reduce((sum, one) => sum + one.mean_rows, 0) / ended.length,
  };
}

export async function* climbed(signal) {
  // Each level of each round as it was measured. Levels take turns, so that whatever else the machine does meets all of
  // them. Before that a short burst that is not measured: what is made on first use is made then.
  await burst([prompt(), prompt()], 4, signal);
  const begun = performance.now();
  const enough = round => round >= (performance.now() - begun < ROUNDS_MS ? MOST_ROUNDS : LEAST_ROUNDS);
  for (let round = 0; !enough(round); round += 1) {
    for (const many of LEVELS) yield {round, many, ...await burst(Array.from({length: many}, prompt), NEW_TOKENS, signal)};
  }
}

export const unequal = (lengths, signal) =>
  // Two requests of each length at once; max_tokens belongs to a body, so every length has one.
  Promise.all(lengths.map(tokens => burst([prompt(), prompt()], tokens, signal)));
