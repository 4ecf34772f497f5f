// Theme: light, dark, or as the system has it; the button #theme goes round. Runs before the first paint, on every page.
"use strict";
(() => {
  const NAMES = ["system", "light", "dark"], root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("ridgeline-theme"); } catch { return null; } };
  const store = name => { try { localStorage.setItem("ridgeline-theme", name); } catch { /* a file, or not allowed */ } };
  const changed = () => document.dispatchEvent(new Event("themechange"));
  let name = NAMES.includes(stored()) ? stored() : "system";

  function show() {
    if (name === "system") delete root.dataset.theme; else root.dataset.theme = name;
    const button = document.getElementById("theme");
    if (!button) return;
    button.textContent = {system: "◐", light: "○", dark: "●"}[name];
    button.title = button.ariaLabel = `Colours: ${name}; press for ${NAMES[(NAMES.indexOf(name) + 1) % 3]}`;
  }

  document.addEventListener("click", event => {
    if (!event.target.closest?.("#theme")) return;
    name = NAMES[(NAMES.indexOf(name) + 1) % 3];
    store(name);
    show();
    changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  document.addEventListener("DOMContentLoaded", show);
  show();
})();
