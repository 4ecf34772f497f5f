// Dom: finding and making elements. Knows no server.

export const at = id => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  // Attributes by their HTML names; `text` is the content. A style is never written as text, for the page's policy.
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value; else if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function drawn(tag, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export function figure(name, value, small = "") {
  // One number of a <dl class="figures">.
  const shown = element("dd", {text: value});
  if (small) shown.append(" ", element("small", {text: small}));
  return element("div", {}, element("dt", {text: name}), shown);
}

export function colour(name) {
  // A custom property as canvas and charts understand it; by itself it would read "light-dark(…)".
  const probe = element("i", {hidden: ""});
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers offer the clipboard only to https and localhost.
    const field = element("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  const label = button.textContent;
  button.textContent = at("spoken").textContent = "Copied";
  setTimeout(() => { button.textContent = label; }, 1200);
}
