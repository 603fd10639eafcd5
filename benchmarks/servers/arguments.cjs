"use strict";
// pingInterval: the seconds between two pings, 0 for none, as the command line says.
const at = process.argv.indexOf("--ping-interval");
exports.pingInterval = at < 0 ? 0 : Number(process.argv[at + 1]);
