// Light, dark, or as the system has it.

import { h, icon } from "./dom.js";

const KEPT = "triows.theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };

let theme = localStorage.getItem(KEPT) ?? "auto";

function apply() {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.dispatchEvent(new Event("theme"));
}

apply();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);

export function themeButton() {
  const label = h("span", { class: "label" });
  const button = h("button", { type: "button", class: "button quiet" }, icon("theme"), label);
  const show = () => {
    label.textContent = { auto: "Auto", light: "Light", dark: "Dark" }[theme];
    button.setAttribute("aria-label", `Theme: ${theme}`);
    button.title = `Theme: ${theme}; click for ${NEXT[theme]}`;
  };
  button.addEventListener("click", () => {
    theme = NEXT[theme];
    localStorage.setItem(KEPT, theme);
    apply();
    show();
  });
  show();
  return button;
}

// A colour of the style sheet as it is now: "#rrggbb".
export function colour(name) {
  const probe = h("span", { hidden: true });
  document.body.append(probe);
  probe.style.color = `var(--${name})`;
  const parts = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return `#${parts.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("")}`;
}
