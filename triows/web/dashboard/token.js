// The token: taken from the address, kept for this tab alone, read for display. Nothing is
// decided by what it says: the server decides.

const KEPT = "triows.token";

// Take the token out of `#token=…&channel=…`, at once: an address is copied, kept and shown.
// Returns the token, or null.
export function takeFromAddress(location, history) {
  const given = new URLSearchParams(location.hash.slice(1));
  const token = given.get("token");
  if (!token) return null;
  const channel = given.get("channel");
  history.replaceState(null, "", location.pathname + (channel ? `#/log/${channel}` : "#/"));
  return token;
}

export const kept = () => sessionStorage.getItem(KEPT);
export const keep = (token) => sessionStorage.setItem(KEPT, token);
export const forget = () => sessionStorage.removeItem(KEPT);

// What a JSON Web Token says: {user, expires (s since 1970) or null, admin, grants}. `admin` is
// null if it is no such token, or one without our grants.
export function read(token) {
  let claims = {};
  try {
    const [, part] = token.split(".");
    const binary = atob(part.replace(/-/g, "+").replace(/_/g, "/"));
    claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (each) => each.charCodeAt(0))));
  } catch {
    // Not a JSON Web Token: the server may know other kinds.
  }
  const grants = claims?.triows ?? {};
  const expires = typeof claims?.exp === "number" ? claims.exp : null;
  const admin = claims?.triows ? grants.admin === true : null;
  return { user: String(claims?.sub ?? "somebody"), expires, admin, grants };
}

// Whether a channel is the server's own, and nobody's session.
export function isSystem(channel) {
  return channel === "system" || channel.startsWith("system:");
}

// Whether patterns like "session:*" cover a channel. A bare "*" does not cover `system`.
export function covers(patterns, channel) {
  if (!Array.isArray(patterns)) return false;
  return patterns.some((pattern) => {
    if (pattern === "*") return !isSystem(channel);
    if (typeof pattern !== "string") return false;
    return pattern.endsWith("*") ? channel.startsWith(pattern.slice(0, -1)) : pattern === channel;
  });
}
