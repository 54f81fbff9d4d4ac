// Sends one message to the queue `hello`.
//
//     node 1_hello_world/send.js
//     node 1_hello_world/send.js "How are you?"
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"use strict";

const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@localhost:5672/%2F";
const text = process.argv.slice(2).join(" ") || "Hello, World!";

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();

  // Declaring a queue creates it, or does nothing when it is there already. Sender and receiver both do it,
  // so that either may be started first.
  await channel.assertQueue("hello", { durable: false });

  // A message for a queue by its name. Closing the channel first writes out everything that the library still holds on it.
  channel.sendToQueue("hello", Buffer.from(text));
  await channel.close();
  await connection.close();
  console.log(`sent: ${text}`);
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
