// Sends a log line of some severity.
//
//     node 4_routing/emit_log.js error "The disk is full"
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"use strict";

const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@localhost:5672/%2F";
const severity = process.argv[2] || "info";
const text = process.argv.slice(3).join(" ") || "Hello, log!";

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();

  // A direct exchange gives a message to the queues that were bound with exactly its routing key.
  await channel.assertExchange("log", "direct", { durable: false });
  channel.publish("log", severity, Buffer.from(text));
  await channel.close();
  await connection.close();
  console.log(`logged: ${severity}: ${text}`);
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
