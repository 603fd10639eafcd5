// Bun's own publishing: every message goes through its topics; and an echo.
import { pingInterval } from "./arguments.cjs";

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request, server) {
    const data = new URL(request.url).pathname;
    return server.upgrade(request, { data }) ? undefined : new Response("", { status: 400 });
  },
  websocket: {
    perMessageDeflate: false,
    backpressureLimit: 1 << 30,
    sendPings: pingInterval > 0,
    idleTimeout: pingInterval, // in seconds; it pings what was silent for about as long
    open(connection) {
      if (connection.data !== "/sub") return;
      connection.subscribe("bench");
      connection.send("subscribed");
    },
    message(connection, message) {
      if (connection.data === "/pub") server.publish("bench", message);
      else connection.send(message);
    },
  },
});
console.log(server.port);
