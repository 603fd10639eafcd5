"use strict";
// Socket.IO on Node: fan-out to a room, and events that are acknowledged.
const { createServer } = require("http");
const { Server } = require("socket.io");
const { pingInterval } = require("./arguments.cjs");

const NEVER = 86_400;

const http = createServer();
const server = new Server(http, {
  transports: ["websocket"],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  pingInterval: (pingInterval || NEVER) * 1000,
});

server.on("connection", (socket) => {
  socket.on("subscribe", (answer) => {
    socket.join("bench");
    answer("subscribed");
  });
  socket.on("publish", (message) => server.to("bench").emit("message", message));
  socket.on("echo", (message, answer) => answer(message));
});

const address = { host: "127.0.0.1", port: 0, backlog: 4096 };
http.listen(address, () => console.log(http.address().port));
