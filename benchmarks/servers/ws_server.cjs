"use strict";
// `ws` on Node: broadcasts as its README says, the same buffer to every client; and an echo.
const { WebSocketServer } = require("ws");
const { pingInterval } = require("./arguments.cjs");

const subscribers = new Set();

const roles = {
  "/sub": (connection) => {
    subscribers.add(connection);
    connection.on("close", () => subscribers.delete(connection));
    connection.send("subscribed");
  },
  "/pub": (connection) => {
    connection.on("message", (data, binary) => {
      for (const subscriber of subscribers) subscriber.send(data, { binary });
    });
  },
  "/echo": (connection) => {
    connection.on("message", (data, binary) => connection.send(data, { binary }));
  },
};

const options = { host: "127.0.0.1", port: 0, backlog: 4096, perMessageDeflate: false };
const server = new WebSocketServer(options, () => console.log(server.address().port));
server.on("connection", (connection, request) => {
  connection.on("error", () => {}); // a load generator that closes without a goodbye
  connection.alive = true;
  connection.on("pong", () => { connection.alive = true; });
  roles[request.url](connection);
});

// Its README's way of finding broken connections.
function ping() {
  for (const connection of server.clients) {
    if (!connection.alive) connection.terminate();
    connection.alive = false;
    connection.ping();
  }
}
if (pingInterval) setInterval(ping, pingInterval * 1000);
