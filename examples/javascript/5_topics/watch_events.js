// Prints the events whose topics match one of the patterns, until Ctrl-C.
//
// In a pattern `*` stands for one word and `#` for any number of words, none included.
//
//     node 5_topics/watch_events.js "#"
//     node 5_topics/watch_events.js "garden.*.opened" "kitchen.#"
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"use strict";

const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@localhost:5672/%2F";
const patterns = process.argv.slice(2);
if (patterns.length === 0) {
  console.error('usage: watch_events.js PATTERN...   (for example: "garden.*.opened" "kitchen.#")');
  process.exit(1);
}

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertExchange("events", "topic", { durable: false });
  const { queue } = await channel.assertQueue("", { exclusive: true });

  // An event that matches several patterns still comes once.
  for (const pattern of patterns) {
    await channel.bindQueue(queue, "events", pattern);
  }

  process.once("SIGINT", async () => {
    await connection.close();
    console.log("stopped");
    process.exit(0);
  });
  console.log("watching, Ctrl-C to stop");

  await channel.consume(queue, ({ fields, content }) => console.log(`${fields.routingKey}: ${content}`), { noAck: true });
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
