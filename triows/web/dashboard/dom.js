// Building the page. Whatever is shown goes through here as text: there is no way to give markup.

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = {
  back: "M10 3 5 8l5 5",
  cross: "M4 4l8 8M12 4l-8 8",
  copy: "M6 6h7v7H6zM10 6V3H3v7h3",
  down: "m3 6 5 5 5-5",
  download: "M8 2v8M4.5 7 8 10.5 11.5 7M3 13.5h10",
  next: "m4 6 4 4 4-4",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  play: "M5 3l8 5-8 5z",
  previous: "m4 10 4-4 4 4",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.5 10.5 14 14",
  stop: "M4 4h8v8H4z",
  theme: "M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12",
};

// An element: h("button", { class: "quiet", onclick: stop, disabled: true }, "Stop")
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  set(element, properties);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function svg(tag, properties = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function set(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value === false || value === null || value === undefined) element.removeAttribute(name);
    else element.setAttribute(name, value);
  }
}

// Set the text of an element if it is another: what has not changed is not laid out again.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A picture of one of our own few shapes, beside text that says the same.
export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true", viewBox: "0 0 16 16" }, svg("path", { d: SHAPES[name] }));
}

// A menu of buttons behind a button; Escape and a click elsewhere close it.
export function menu(label, picture, items) {
  const buttons = items.map(([text, act]) =>
    h("button", { type: "button", onclick: () => (element.open = false, act()) }, text),
  );
  const summary = h("summary", { class: "button", "aria-label": label }, icon(picture), h("span", { class: "label" }, label));
  const element = h("details", { class: "menu" }, summary, h("div", { class: "menu-items" }, ...buttons));
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !element.open) return;
    event.stopPropagation();
    element.open = false;
    summary.focus();
  });
  element.addEventListener("focusout", ({ relatedTarget }) => {
    if (relatedTarget && !element.contains(relatedTarget)) element.open = false;
  });
  document.addEventListener("click", ({ target }) => {
    if (element.isConnected && !element.contains(target)) element.open = false;
  });
  return element;
}

// Ask before something that cannot be taken back.
export function confirm(title, text, yes) {
  return new Promise((resolve) => {
    const answer = (value) => () => dialog.close(value);
    const dialog = h(
      "dialog",
      { "aria-labelledby": "confirm-title", class: "dialog", onclose: () => (dialog.remove(), resolve(dialog.returnValue === "yes")) },
      h("h2", { id: "confirm-title" }, title),
      h("p", {}, text),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", class: "button", onclick: answer("no") }, "Cancel"),
        h("button", { type: "button", class: "button danger", onclick: answer("yes") }, yes),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

// Tell what became of something, for a few seconds, to screen readers as well.
export function tell(text) {
  const place = document.getElementById("told");
  const note = h("p", {}, text);
  place.replaceChildren(note);
  setTimeout(() => note.remove(), 6000);
}
