// Taking a log along: to the clipboard, or as a file.

import { channelPath } from "./api.js";
import { h } from "./dom.js";
import { asText, rowsOf } from "./rows.js";

const PAGE = 1000;

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyByHand(text); // pages that were not got over TLS have no clipboard
  }
}

function copyByHand(text) {
  const area = h("textarea", { class: "unseen", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("this browser does not let pages copy");
}

// All that the server keeps of a channel, in order; `progress(done, all)` is told on the way.
export async function fetchAll(api, channel, progress) {
  const messages = [];
  const { epoch } = await api.get(channelPath(channel));
  let cursor = `${epoch}:0`;
  for (;;) {
    const page = await api.get(`${channelPath(channel)}/messages`, { since: cursor, limit: PAGE });
    if (page.gap) messages.push({ type: "gap", channel, data: page.gap });
    messages.push(...page.messages);
    progress(page.messages.at(-1)?.offset ?? page.offset, page.offset);
    if (!page.messages.length || page.cursor === cursor) return messages;
    cursor = page.cursor;
  }
}

export const asLines = (messages) => messages.map((message) => `${JSON.stringify(message)}\n`).join("");

export const asFile = (messages) => messages.flatMap((message) => rowsOf(message)).map((row) => `${asText(row)}\n`).join("");

export function save(name, kind, text) {
  const address = URL.createObjectURL(new Blob([text], { type: `${kind};charset=utf-8` }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export const fileName = (channel, kind) => `${channel.replace(/[^A-Za-z0-9._-]+/g, "_")}.${kind}`;
