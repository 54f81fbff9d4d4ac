// Prints every message that comes to the queue `hello`, until Ctrl-C.
//
//     node 1_hello_world/receive.js
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"use strict";

const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@localhost:5672/%2F";

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertQueue("hello", { durable: false });

  process.once("SIGINT", async () => {
    await connection.close();
    console.log("stopped");
    process.exit(0);
  });
  console.log("waiting for messages, Ctrl-C to stop");

  // With noAck the broker forgets a message as soon as it is sent to us; the next example does better.
  await channel.consume("hello", (message) => console.log(`received: ${message.content}`), { noAck: true });
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
