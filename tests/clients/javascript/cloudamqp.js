// @cloudamqp/amqp-client, without dependencies and typed: `node cloudamqp.js FEATURE` (see check.js).
"use strict";

const { AMQPClient, AMQPSession } = require("@cloudamqp/amqp-client");

const { url, feature, equal, name, failureOf, within, Inbox, run } = require("./check.js");

async function opened() {
  const connection = await new AMQPClient(url).connect();
  connection.onerror = () => {}; // features ask for errors where they expect them
  return { connection, channel: await connection.channel() };
}

async function queueOf(channel) {
  return (await channel.queueDeclare(name("q"), { durable: true, autoDelete: false })).name;
}

async function ready(channel, queue) {
  return (await channel.queueDeclare(queue, { passive: true })).messageCount;
}

async function inboxOf(channel, queue, settings) {
  const inbox = new Inbox(`a delivery from ${queue}`);
  const consumer = await channel.basicConsume(queue, settings, inbox.put);
  return Object.assign(inbox, { consumer });
}

async function bodies(inbox, count) {
  const texts = [];
  while (texts.length < count) {
    texts.push((await inbox.take()).bodyString());
  }
  return texts.join(" ");
}

feature("connect and close", async () => {
  const { connection, channel } = await opened();
  equal("negotiated", [connection.channelMax, connection.frameMax], [2047, 8192]); // it asks for small frames
  await channel.close();
  await connection.close();
  equal("closed", connection.closed, true);
  const refused = await failureOf("a wrong password", new AMQPClient(url.replace("guest:guest", "guest:wrong")).connect());
  equal("it says why", refused.message.includes("ACCESS_REFUSED"), true);
  const nowhere = await failureOf("no such virtual host", new AMQPClient(url.replace("%2F", "nowhere")).connect());
  equal("it says why", nowhere.message.includes("vhost nowhere not found"), true);
});

feature("update secret", async () => {
  const { connection, channel } = await opened();
  await within("the answer", connection.updateSecret("guest", "it was time"));
  equal("the connection goes on", (await channel.queueDeclare("")).messageCount, 0);
});

feature("publish carries everything", async () => {
  const { channel } = await opened();
  const queue = await queueOf(channel);
  const properties = {
    contentType: "text/plain", contentEncoding: "utf-8", deliveryMode: 2, priority: 7, correlationId: "c", replyTo: "r",
    expiration: "60000", messageId: "m", timestamp: new Date(1_700_000_000_000), type: "t", userId: "guest", appId: "a",
    headers: { text: "grün", int: 7, float: 1.5, yes: true, list: [1, "two"], table: { k: "v" } },
  };
  const body = new Uint8Array(100_000).map((_, index) => index);
  await channel.basicPublish("", queue, body, properties);
  const message = await (await inboxOf(channel, queue, { noAck: true })).take();
  equal("body", Buffer.compare(message.body, body), 0);
  equal("properties", message.properties, properties);
  equal("fields", [message.exchange, message.routingKey, message.redelivered, message.deliveryTag], ["", queue, false, 1]);
  await channel.queueDelete(queue);
});

feature("confirms and returns", async () => {
  const { channel } = await opened();
  const queue = await queueOf(channel);
  const returned = new Inbox("a return");
  channel.onReturn = returned.put;
  await channel.confirmSelect();
  const numbers = await within("confirms", Promise.all([1, 2, 3].map(() => channel.basicPublish("", queue, "x"))));
  equal("numbers", numbers, [1, 2, 3]);
  equal("what is confirmed is there", await ready(channel, queue), 3);
  equal("unroutable is confirmed too", await channel.basicPublish("amq.topic", name("nowhere"), "back", {}, true), 4);
  const back = await returned.take();
  equal("returned", [back.replyCode, back.replyText, back.bodyString()], [312, "NO_ROUTE", "back"]);
  await channel.basicPublish("", queue, "now or never", {}, false, true);
  const late = await returned.take();
  equal("immediate", [late.replyCode, late.replyText, late.bodyString()], [313, "NO_CONSUMERS", "now or never"]);
  await channel.queueDelete(queue);
});

feature("consume, ack and qos", async () => {
  const { channel } = await opened();
  const queue = await queueOf(channel);
  for (const body of ["1", "2", "3", "4", "5"]) {
    await channel.basicPublish("", queue, body);
  }
  await channel.basicQos(2);
  const inbox = await inboxOf(channel, queue, { noAck: false });
  equal("two", await bodies(inbox, 1), "1");
  const second = await inbox.take();
  equal("the rest waits", await ready(channel, queue), 3);
  await second.ack(true);
  const third = await inbox.take();
  await third.nack(true);
  const again = new Set([await inbox.take(), await inbox.take()].map((message) => message.bodyString()));
  equal("the third once more", again, new Set(["3", "4"]));
  await inbox.consumer.cancel();
  await channel.basicRecover(true);
  equal("all are ready", await ready(channel, queue), 3);
  equal("purged", (await channel.queuePurge(queue)).messageCount, 3);
  equal("an empty queue", await channel.basicGet(queue), null);
  await channel.basicPublish("", queue, "one");
  const got = await channel.basicGet(queue, { noAck: false });
  equal("got", got.bodyString(), "one");
  await got.reject(false);
  equal("nothing is left", (await channel.queueDelete(queue)).messageCount, 0);
});

feature("flow", async () => {
  const { connection, channel } = await opened();
  const queue = await queueOf(channel);
  const inbox = await inboxOf(channel, queue, { noAck: true });
  equal("paused", await channel.basicFlow(false), false);
  await channel.basicPublish("", queue, "held");
  equal("it waits", await ready(channel, queue), 1);
  equal("nothing came", inbox.waiting.length, 0);
  equal("running", await channel.basicFlow(true), true);
  equal("it comes", await bodies(inbox, 1), "held");
  await (await connection.channel()).queueDelete(queue);
});

feature("transactions", async () => {
  const { connection, channel } = await opened();
  const watching = await connection.channel();
  const queue = await queueOf(watching);
  await channel.txSelect();
  await channel.basicPublish("", queue, "never");
  await channel.txRollback();
  await channel.basicPublish("", queue, "kept");
  equal("not yet", await ready(watching, queue), 0);
  await channel.txCommit();
  equal("committed", await ready(watching, queue), 1);
  await watching.queueDelete(queue);
});

feature("topology", async () => {
  const { channel } = await opened();
  const [source, middle, queue] = [name("source"), name("middle"), await queueOf(channel)];
  await channel.exchangeDeclare(source, "topic", { durable: false });
  await channel.exchangeDeclare(middle, "headers", { durable: true, internal: true });
  await channel.exchangeBind(middle, source, "a.*");
  await channel.queueBind(queue, middle, "", { "x-match": "all", colour: "red" });
  await channel.basicPublish(source, "a.b", "through", { headers: { colour: "red" } });
  await channel.basicPublish(source, "a.b", "another colour", { headers: { colour: "blue" } });
  await channel.basicPublish(source, "b.b", "nowhere", { headers: { colour: "red" } });
  equal("routed", await ready(channel, queue), 1);
  await channel.queueUnbind(queue, middle, "", { "x-match": "all", colour: "red" });
  await channel.exchangeUnbind(middle, source, "a.*");
  await channel.exchangeDelete(middle, { ifUnused: true });
  await channel.exchangeDelete(source);
  equal("deleted", (await channel.queueDelete(queue)).messageCount, 1);
});

feature("channel errors", async () => {
  const { connection } = await opened();
  const cases = [
    [(channel) => channel.queueDeclare("nowhere", { passive: true }), "NOT_FOUND - no queue 'nowhere' in vhost '/'"],
    [(channel) => channel.basicConsume("nowhere", {}, () => {}), "NOT_FOUND - no queue 'nowhere' in vhost '/'"],
    [(channel) => channel.queueDeclare("amq.mine"), "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"],
    [(channel) => channel.queueBind("nowhere", "amq.direct", "k"), "NOT_FOUND - no queue 'nowhere' in vhost '/'"],
  ];
  for (const [cause, text] of cases) {
    const error = await failureOf("the operation", cause(await connection.channel()));
    equal(error.message, error.message.includes(text), true);
  }
  equal("the connection goes on", (await (await connection.channel()).queueDeclare("")).messageCount, 0);
});

feature("cancelled by the broker", async () => {
  const { connection, channel } = await opened();
  const queue = await queueOf(channel);
  const inbox = await inboxOf(channel, queue, { noAck: true });
  const cancelled = failureOf("waiting for the consumer", inbox.consumer.wait());
  await (await connection.channel()).queueDelete(queue);
  equal("it says so", (await cancelled).message.toLowerCase().includes("cancel"), true);
});

feature("calls by direct replies", async () => {
  const session = await AMQPSession.connect(url);
  const { channel } = await opened();
  const queue = await queueOf(channel);
  await channel.basicConsume(queue, { noAck: true }, async (question) => {
    const { replyTo, correlationId } = question.properties;
    await channel.basicPublish("", replyTo, question.bodyString().toUpperCase(), { correlationId });
  });
  const client = await session.rpcClient();
  for (const [question, answer] of [["one", "ONE"], ["two", "TWO"]]) {
    equal("the answer", (await client.call(queue, question, { timeout: 30_000 })).bodyString(), answer);
  }
  await client.close();
  await session.stop();
  await channel.queueDelete(queue);
});

run();
