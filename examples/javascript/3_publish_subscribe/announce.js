// Tells something to everybody who is listening just now.
//
//     node 3_publish_subscribe/announce.js "Lunch is ready"
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"use strict";

const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@localhost:5672/%2F";
const text = process.argv.slice(2).join(" ") || "Hello, everybody!";

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();

  // A fanout exchange copies each message into every queue that is bound to it. Without any, the message is gone.
  await channel.assertExchange("announcements", "fanout", { durable: false });
  channel.publish("announcements", "", Buffer.from(text));
  await channel.close();
  await connection.close();
  console.log(`announced: ${text}`);
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
