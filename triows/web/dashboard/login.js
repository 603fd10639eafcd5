// Asking for a token: on a page of its own at first, over the page when one has expired.

import { h } from "./dom.js";

// The form. `use(token)` logs in, and raises what is wrong with the token.
function form(use, { done, label }) {
  const input = h("input", {
    id: "token", type: "password", name: "token", autocomplete: "off", spellcheck: "false",
    required: true, "aria-describedby": "token-error", placeholder: "eyJ…",
  });
  const error = h("p", { id: "token-error", class: "error", role: "alert" });
  const button = h("button", { type: "submit", class: "button primary" }, label);
  const submit = async (event) => {
    event.preventDefault();
    const token = input.value.trim().replace(/^.*#?token=/, "").replace(/&.*$/, "");
    if (!token) return;
    button.disabled = true;
    error.textContent = "";
    try {
      await use(token);
      done();
    } catch (failure) {
      error.textContent = failure.status === 0 ? "The server cannot be reached." : `The server refused it: ${failure.message}`;
      input.setAttribute("aria-invalid", "true");
      input.select();
    } finally {
      button.disabled = false;
    }
  };
  return h("form", { class: "token-form", onsubmit: submit }, h("label", { for: "token" }, "Token"), h("div", { class: "row" }, input, button), error);
}

// The first page. Resolves when `use` has taken a token; `reason` is why there is none yet.
export function showLogin(place, use, reason = "") {
  return new Promise((done) => {
    const page = h(
      "section",
      { class: "login" },
      h("h1", { tabindex: "-1" }, "Watch live sessions"),
      h("p", { class: "lead" }, "Paste a token to see the sessions it may watch. It is kept in this tab only, until you close it or log out."),
      reason ? h("p", { class: "error", role: "alert" }, reason) : null,
      form(use, { done, label: "Log in" }),
      h("h2", {}, "No token at hand?"),
      h("p", {}, "A server for a first look prints a link that logs you in:"),
      h("pre", { class: "command" }, "triows serve --dev"),
      h("p", {}, "With a key of your own, make one:"),
      h("pre", { class: "command" }, "triows token --auth.secret-file secret --sub ann --subscribe 'session:*'"),
    );
    place.replaceChildren(page);
    page.querySelector("input").focus();
  });
}

// Over the page, which stays as it is. Resolves when `use` has taken a token.
export function askForToken(reason, use) {
  return new Promise((done) => {
    const finish = () => {
      dialog.remove();
      done();
    };
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-labelledby": "renew-title", oncancel: (event) => event.preventDefault() },
      h("h2", { id: "renew-title" }, "A new token is needed"),
      h("p", {}, reason),
      h("p", {}, "Paste another to go on where you are, or reload the page to start anew."),
      form(use, { done: finish, label: "Go on" }),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
