// Server: how the page talks to it: key, answers, event streams. Knows no section of the page.

// Where the server has API keys the page asks for one, once it was told that it needs it. It stays in this tab.
let key = sessionStorage.getItem("ridgeline-key");

export class Refused extends Error {
  // An answer that is an error; param: the field that is wrong.
  constructor(status, error) {
    super(error?.message ?? `the server answers ${status}`);
    Object.assign(this, {status, type: error?.type, param: error?.param, code: error?.code});
  }
}

export const hasKey = () => key !== null;

export function useKey(secret) {
  key = secret;
  sessionStorage.setItem("ridgeline-key", secret);
}

export const call = (path, init = {}) =>
  fetch(path, key ? {...init, headers: {...init.headers, Authorization: `Bearer ${key}`}} : init);

export async function ask(path, init = {}) {
  // The answer, or Refused in the server's own words.
  const response = await call(path, init);
  if (response.ok) return response;
  const said = await response.json().catch(() => null);
  throw new Refused(response.status, said?.error);
}

export async function* events(response) {
  // The JSON objects of an event stream, until it ends.
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    const parts = (buffer + value).split("\n\n");
    buffer = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter(line => line.startsWith("data: ")).map(line => line.slice(6)).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}
