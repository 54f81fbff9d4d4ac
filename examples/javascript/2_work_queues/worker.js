// Works on the tasks of the queue `tasks`, one at a time, until Ctrl-C. Start several to share the work.
//
//     node 2_work_queues/worker.js
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"use strict";

const { setTimeout: sleep } = require("node:timers/promises");

const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@localhost:5672/%2F";

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertQueue("tasks", { durable: true });

  // Not more than one unfinished task for each worker: a task goes to whoever is free, not to whoever is next.
  await channel.prefetch(1);

  process.once("SIGINT", async () => {
    await connection.close();
    console.log("stopped");
    process.exit(0);
  });
  console.log("waiting for tasks, Ctrl-C to stop");

  await channel.consume("tasks", async (message) => {
    const task = message.content.toString();
    console.log(`working: ${task}`);
    await sleep(task.split(".").length * 100 - 100);
    console.log(`done: ${task}`);
    // Only now may the broker forget the task. If this program dies before, another worker gets it.
    channel.ack(message);
  });
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
