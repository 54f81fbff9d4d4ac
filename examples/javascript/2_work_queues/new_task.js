// Puts a task into the queue `tasks`. Each dot in its text stands for one tenth of a second of work.
//
//     node 2_work_queues/new_task.js "resize photo 17..."
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"use strict";

const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@localhost:5672/%2F";
const task = process.argv.slice(2).join(" ") || "a short task.";

async function main() {
  const connection = await amqp.connect(url);
  // On a confirm channel the broker says of each message that it has taken it over, or that it cannot.
  const channel = await connection.createConfirmChannel();

  // A durable queue is still known after a restart of the broker.
  await channel.assertQueue("tasks", { durable: true });
  channel.sendToQueue("tasks", Buffer.from(task), { persistent: true });
  await channel.waitForConfirms();
  await channel.close();
  await connection.close();
  console.log(`queued: ${task}`);
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
