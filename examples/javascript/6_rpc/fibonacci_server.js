// Answers requests for Fibonacci numbers, until Ctrl-C. Start several to share the work.
//
//     node 6_rpc/fibonacci_server.js
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"use strict";

const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@localhost:5672/%2F";

function fibonacci(text) {
  if (!/^\d+$/.test(text)) {
    return `not a number: ${text}`;
  }
  let [a, b] = [0n, 1n];
  for (let n = Number(text); n > 0; n--) {
    [a, b] = [b, a + b];
  }
  return a.toString();
}

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertQueue("fibonacci", { durable: false });
  await channel.prefetch(1);

  process.once("SIGINT", async () => {
    await connection.close();
    console.log("stopped");
    process.exit(0);
  });
  console.log("waiting for requests, Ctrl-C to stop");

  await channel.consume("fibonacci", (message) => {
    const answer = fibonacci(message.content.toString());
    console.log(`fibonacci(${message.content}) = ${answer}`);

    // The answer goes to the queue that the asker named, with the asker's own mark for this question.
    const { replyTo, correlationId } = message.properties;
    channel.sendToQueue(replyTo, Buffer.from(answer), { correlationId });
    channel.ack(message);
  });
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
