// Prints all announcements made from now on, until Ctrl-C. Start several: each hears everything.
//
//     node 3_publish_subscribe/listen.js
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"use strict";

const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@localhost:5672/%2F";

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertExchange("announcements", "fanout", { durable: false });

  // A queue of our own: the broker makes up its name, and removes it when this connection ends.
  const { queue } = await channel.assertQueue("", { exclusive: true });
  await channel.bindQueue(queue, "announcements", "");

  process.once("SIGINT", async () => {
    await connection.close();
    console.log("stopped");
    process.exit(0);
  });
  console.log("listening, Ctrl-C to stop");

  await channel.consume(queue, (message) => console.log(`heard: ${message.content}`), { noAck: true });
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
