// Telling a running command what to do, for those whose token allows it.

import { confirm, h, icon, tell } from "./dom.js";
import { plain } from "./format.js";
import { compact } from "./rows.js";

export function steering(session, channel) {
  const send = async (data, what) => {
    try {
      const result = await session.client.command(channel, data);
      const refused = result?.outcome === "refused";
      if (refused) tell(`Refused: ${plain(result.reason ?? compact(result))}`);
      else if (result?.outcome === "obeyed") tell(`${what}.`);
      else tell(`Sent: ${data.action}. Whether it is obeyed, the log tells.`); // nobody answered
      return !refused;
    } catch (error) {
      tell(`Not sent: ${plain(error.message)}`);
      return false;
    }
  };
  const terminate = async () => {
    const sure = await confirm("Terminate it?", `What runs in ${channel} is asked to end, and killed after a few seconds.`, "Terminate");
    if (sure) await send({ action: "terminate" }, "Asked to terminate");
  };
  const line = h("input", { class: "input-line", "aria-label": "A line of input for the command", placeholder: "Input for the command", autocomplete: "off", spellcheck: "false" });
  const input = async (event) => {
    event.preventDefault();
    if (await send({ action: "input", text: `${line.value}\n` }, "Input sent")) line.value = "";
  };
  return h(
    "div",
    { class: "steering", role: "group", "aria-label": "Steer the command" },
    h("button", { type: "button", class: "button", "aria-label": "Interrupt", title: "Interrupt, as Ctrl-C does", onclick: () => send({ action: "interrupt" }, "Interrupted") }, icon("cross"), h("span", { class: "label" }, "Interrupt")),
    h("button", { type: "button", class: "button danger", "aria-label": "Terminate", title: "Terminate", onclick: terminate }, icon("stop"), h("span", { class: "label" }, "Terminate")),
    h("form", { class: "row", onsubmit: input }, line, h("button", { type: "submit", class: "button" }, "Send")),
  );
}
