// Which view the address names: `#/`, `#/log/<channel>`, `#/connections`, `#/server`. Pure.

export function route(hash) {
  const [, view = "", rest = ""] = /^#\/([a-z]*)\/?(.*)$/.exec(hash) ?? [];
  if (view === "log" && rest) return { name: "log", channel: decode(rest) };
  if (view === "connections" || view === "server") return { name: view };
  return { name: "sessions" };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
