// amqplib, the library that most Node programs use: `node amqplib.js FEATURE` (see check.js).
"use strict";

const { once } = require("node:events");

const amqp = require("amqplib");

const { url, feature, equal, name, failureOf, within, Inbox, run } = require("./check.js");

// A channel on a connection of its own. Errors of either are told where a feature asks for them, and must not end the program.
async function opened(create = "createChannel") {
  const connection = await amqp.connect(url);
  connection.on("error", () => {});
  const channel = await connection[create]();
  channel.on("error", () => {});
  return { connection, channel };
}

async function queueOf(channel) {
  const { queue } = await channel.assertQueue(name("q"), { durable: true, autoDelete: false });
  return queue;
}

async function ready(channel, queue) {
  return (await channel.checkQueue(queue)).messageCount;
}

async function inboxOf(channel, queue, options) {
  const inbox = new Inbox(`a delivery from ${queue}`);
  const { consumerTag } = await channel.consume(queue, inbox.put, options);
  return Object.assign(inbox, { consumerTag });
}

async function bodies(inbox, count) {
  const texts = [];
  while (texts.length < count) {
    texts.push((await inbox.take()).content.toString());
  }
  return texts.join(" ");
}

feature("connect and close", async () => {
  const { connection, channel } = await opened();
  equal("product and capabilities", typeof connection.connection.serverProperties.capabilities.publisher_confirms, "boolean");
  equal("frame size", connection.connection.frameMax <= 131072, true);
  const closed = once(connection, "close");
  await channel.close();
  await connection.close();
  equal("closed without an error", await within("the close event", closed), [undefined]);
  equal("wrong password", (await failureOf("connecting", amqp.connect(url.replace("guest:guest", "guest:wrong")))).message.slice(0, 44),
    "Handshake terminated by server: 403 (ACCESS-REFUSED)".slice(0, 44));
  const nowhere = await failureOf("connecting", amqp.connect(url.replace("%2F", "nowhere")));
  equal("no such virtual host", nowhere.message.includes("got <ConnectionClose"), true);
});

feature("connect with settings", async () => {
  const connection = await amqp.connect(`${url}?frameMax=8192&heartbeat=1&channelMax=2`, { clientProperties: { connection_name: "from Node" } });
  equal("negotiated", [connection.connection.frameMax, connection.connection.heartbeat], [8192, 1]);
  const channel = await connection.createChannel();
  const queue = await queueOf(channel);
  const body = Buffer.alloc(100_000, "0123456");
  channel.sendToQueue(queue, body);
  const message = await (await inboxOf(channel, queue, { noAck: true })).take();
  equal("a body of many frames", message.content.equals(body), true);
  await channel.deleteQueue(queue);
  await connection.close();
});

feature("publish carries everything", async () => {
  const { channel } = await opened();
  const queue = await queueOf(channel);
  const headers = { text: "grün", int: 7, big: 2 ** 40, float: 1.5, yes: true, nothing: null, list: [1, "two", null], table: { k: "v" } };
  channel.sendToQueue(queue, Buffer.from("body"), {
    headers, contentType: "text/plain", contentEncoding: "utf-8", persistent: true, priority: 7, correlationId: "c", replyTo: "r",
    expiration: "60000", messageId: "m", timestamp: 1_700_000_000, type: "t", userId: "guest", appId: "a",
  });
  const { fields, properties, content } = await (await inboxOf(channel, queue, { noAck: true })).take();
  equal("body", content.toString(), "body");
  equal("headers", properties.headers, headers);
  delete properties.headers;
  equal("properties", { ...properties }, {
    contentType: "text/plain", contentEncoding: "utf-8", deliveryMode: 2, priority: 7, correlationId: "c", replyTo: "r",
    expiration: "60000", messageId: "m", timestamp: 1_700_000_000, type: "t", userId: "guest", appId: "a", clusterId: undefined,
  });
  equal("fields", [fields.exchange, fields.routingKey, fields.redelivered, fields.deliveryTag], ["", queue, false, 1]);
  await channel.deleteQueue(queue);
});

feature("confirms", async () => {
  const { channel } = await opened("createConfirmChannel");
  const queue = await queueOf(channel);
  const confirmed = [];
  for (let number = 0; number < 50; number++) {
    channel.sendToQueue(queue, Buffer.from("x"), {}, (error) => confirmed.push(error));
    channel.publish("amq.direct", name("nowhere"), Buffer.from("unroutable is confirmed too"), {}, (error) => confirmed.push(error));
  }
  await channel.waitForConfirms();
  equal("all confirmed, none refused", confirmed, Array(100).fill(null));
  equal("what is confirmed is there", await ready(channel, queue), 50);
  await channel.deleteQueue(queue);
});

feature("mandatory is returned", async () => {
  const { channel } = await opened("createConfirmChannel");
  const order = [];
  channel.on("return", ({ fields, content }) => order.push(`${fields.replyCode} ${fields.replyText} ${content}`));
  channel.publish("amq.topic", name("nowhere"), Buffer.from("back"), { mandatory: true }, () => order.push("confirmed"));
  await channel.waitForConfirms();
  equal("in this order", order, ["312 NO_ROUTE back", "confirmed"]);
});

feature("consume, ack and prefetch", async () => {
  const { channel } = await opened();
  const queue = await queueOf(channel);
  for (const body of ["1", "2", "3", "4", "5"]) {
    channel.sendToQueue(queue, Buffer.from(body));
  }
  await channel.prefetch(2);
  const inbox = await inboxOf(channel, queue);
  const [first, second] = [await inbox.take(), await inbox.take()];
  equal("the rest waits", await ready(channel, queue), 3);
  equal("none beyond the limit", inbox.waiting.length, 0);
  channel.ack(second, true);
  equal("two in their place", await bodies(inbox, 2), "3 4");
  channel.nackAll(true);
  equal("they come again", await bodies(inbox, 2), "3 4");
  channel.ackAll();
  const last = await inbox.take();
  channel.reject(last, true);
  const again = await inbox.take();
  equal("redelivered", [again.content.toString(), again.fields.redelivered], ["5", true]);
  await channel.cancel(inbox.consumerTag);
  channel.nack(again, false, false);
  equal("nothing is left", await ready(channel, queue), 0);
  equal("the first was", first.content.toString(), "1");
  equal("deleted", (await channel.deleteQueue(queue)).messageCount, 0);
});

feature("recover", async () => {
  const { channel } = await opened();
  const queue = await queueOf(channel);
  channel.sendToQueue(queue, Buffer.from("x"));
  const inbox = await inboxOf(channel, queue);
  await inbox.take();
  await channel.recover();
  const again = await inbox.take();
  equal("again", [again.content.toString(), again.fields.redelivered], ["x", true]);
  channel.ack(again);
  await channel.deleteQueue(queue);
});

feature("get", async () => {
  const { channel } = await opened();
  const queue = await queueOf(channel);
  equal("an empty queue", await channel.get(queue), false);
  channel.sendToQueue(queue, Buffer.from("1"));
  channel.sendToQueue(queue, Buffer.from("2"));
  const message = await channel.get(queue);
  equal("the first", [message.content.toString(), message.fields.messageCount], ["1", 1]);
  channel.ack(message);
  equal("purged", await channel.purgeQueue(queue), { messageCount: 1 });
  await channel.deleteQueue(queue);
});

feature("topology", async () => {
  const { channel } = await opened();
  const [source, middle, queue] = [name("source"), name("middle"), await queueOf(channel)];
  await channel.assertExchange(source, "topic", { durable: false });
  await channel.assertExchange(middle, "fanout", { durable: true, internal: true });
  await channel.checkExchange(middle);
  await channel.bindExchange(middle, source, "a.*");
  await channel.bindQueue(queue, middle, "");
  channel.publish(source, "a.b", Buffer.from("through"));
  channel.publish(source, "b.b", Buffer.from("nowhere"));
  equal("routed", await ready(channel, queue), 1);
  await channel.unbindExchange(middle, source, "a.*");
  channel.publish(source, "a.b", Buffer.from("no longer"));
  equal("not routed", await ready(channel, queue), 1);
  await channel.bindQueue(queue, source, "#");
  await channel.unbindQueue(queue, middle, "");
  channel.publish(source, "anything", Buffer.from("2"));
  equal("bound directly", await ready(channel, queue), 2);
  await channel.deleteExchange(source);
  await channel.deleteExchange(middle, { ifUnused: true });
  await channel.deleteQueue(queue);
  equal("the channel lived through it", (await channel.assertQueue("", { exclusive: true })).queue.startsWith("amq.gen-"), true);
});

feature("channel errors", async () => {
  const cases = [
    [(channel) => channel.checkQueue("nowhere"), 404, "NOT_FOUND - no queue 'nowhere' in vhost '/'"],
    [(channel) => channel.assertExchange("amq.mine", "direct"), 403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'"],
    [(channel) => channel.assertExchange("amq.direct", "topic"), 406,
      "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received 'topic' but current is 'direct'"],
    [(channel) => channel.deleteExchange("amq.direct"), 403, "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed"],
  ];
  for (const [cause, code, text] of cases) {
    const { connection, channel } = await opened();
    const closed = new Promise((resolve) => channel.on("close", resolve)); // once() would give up at the error before
    const error = await failureOf("the operation", cause(channel));
    equal("code", error.code, code);
    equal("text", error.message.includes(text), true);
    await within("the channel's end", closed);
    equal("the connection goes on", (await (await connection.createChannel()).assertQueue("", { exclusive: true })).messageCount, 0);
    await connection.close();
  }
  const { channel } = await opened();
  const failed = once(channel, "error");
  channel.publish("nowhere", "k", Buffer.from("x"));
  const [error] = await within("the channel's error", failed);
  equal("publishing to nowhere", [error.code, error.message.includes("NOT_FOUND - no exchange 'nowhere' in vhost '/'")], [404, true]);
});

feature("cancelled by the broker", async () => {
  const { connection, channel } = await opened();
  const queue = await queueOf(channel);
  const inbox = await inboxOf(channel, queue);
  await (await connection.createChannel()).deleteQueue(queue);
  equal("null tells of it", await inbox.take(), null);
});

feature("connection error", async () => {
  const { connection, channel } = await opened();
  const queue = await queueOf(channel);
  await channel.consume(queue, () => {}, { consumerTag: "twice" });
  const failed = once(connection, "error");
  await failureOf("the second consumer", channel.consume(queue, () => {}, { consumerTag: "twice" }));
  const [error] = await within("the connection's error", failed);
  equal("code", error.code, 530);
  equal("text", error.message.includes("NOT_ALLOWED - attempt to reuse consumer tag 'twice'"), true);
  await (await opened()).channel.deleteQueue(queue);
});

run();
