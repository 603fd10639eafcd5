// Compiled, never run: what the types of triows.js allow, and what they do not.

import { connect, TriowsError, type Message, type Position, type State } from "../../triows/web/triows.js";

const client = connect({ getToken: async () => "token" });
connect({ url: new URL("wss://a.test/ws"), getToken: () => "token", WebSocket });
client.onstate = (state: State, detail) => console.log(state, detail?.delay, detail?.code, detail?.reason);
client.onerror = (error) => console.error(error);

interface Line {
  text: string;
}

const subscription = client.subscribe<Line>("session:1", { tail: 10, onLag: "latest" }, (message) => {
  switch (message.type) {
    case "log":
      console.log(message.offset, message.timestamp, message.data?.text);
      // @ts-expect-error a line has no such member
      console.log(message.data?.nothing);
      break;
    case "gap":
      console.log(message.data.from, message.data.to, message.data.count, message.data.reason);
      break;
    case "lag":
      console.log(message.data.behind);
      break;
    case "error": {
      const error: TriowsError = message.data;
      console.log(error.code, error.retry, error.retryAfter, error.message);
      break;
    }
  }
});
const position: Position | null = subscription.position;
client.subscribe("session:1", { since: position ?? undefined }, async (message: Message) => console.log(message.type));
subscription.close();
console.log(subscription.lag, client.session?.user, client.state);

const published: Position = await client.publish("session:1", "log", { text: "a" }, { id: "b" });
const own: string = await client.publish("session:1", "of.our.own", {});
const result: { done: boolean } = await client.command("session:1", { action: "interrupt" });
const page = await client.history("session:1", { from: 1, to: 9, limit: 5, epoch: published.epoch });
console.log(own, result, page.next, page.messages[0]?.data, (await client.presence("session:1")).connections[0]?.user);
await client.close();

// @ts-expect-error a token is needed
connect({ url: "ws://a.test/ws" });
// @ts-expect-error the state is the client's
client.state = "open";
// @ts-expect-error no such place to begin
client.subscribe("session:1", { from: "end" }, () => {});
// @ts-expect-error a handler is needed
client.subscribe("session:1", {});
