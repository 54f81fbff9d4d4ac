// Sends an event under a topic: words joined by dots, from the general to the special.
//
//     node 5_topics/emit_event.js garden.gate.opened "by the gardener"
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"use strict";

const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@localhost:5672/%2F";
const topic = process.argv[2] || "garden.gate.opened";
const text = process.argv.slice(3).join(" ");

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();

  // A topic exchange compares the routing key, word by word, with the pattern of each binding.
  await channel.assertExchange("events", "topic", { durable: false });
  channel.publish("events", topic, Buffer.from(text));
  await channel.close();
  await connection.close();
  console.log(`sent: ${topic}: ${text}`);
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
