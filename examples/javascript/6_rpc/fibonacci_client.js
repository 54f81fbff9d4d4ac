// Asks the Fibonacci server for some numbers and prints the answers.
//
//     node 6_rpc/fibonacci_client.js 10 50 100
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"use strict";

const crypto = require("node:crypto");

const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@localhost:5672/%2F";
const numbers = process.argv.length > 2 ? process.argv.slice(2) : ["30"];
const answerWithinMs = 10_000;

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  const { queue } = await channel.assertQueue("", { exclusive: true });
  const questions = new Map();
  await channel.consume(
    queue,
    ({ properties, content }) => {
      const answered = questions.get(properties.correlationId);
      questions.delete(properties.correlationId);
      answered?.(content.toString());
    },
    { noAck: true },
  );
  for (const number of numbers) {
    // The mark by which the answer to this question is known.
    const correlationId = crypto.randomUUID();
    const answer = await new Promise((resolve, reject) => {
      const late = () => reject(new Error(`no answer within ${answerWithinMs / 1000} s: is fibonacci_server.js running?`));
      const timer = setTimeout(late, answerWithinMs);
      questions.set(correlationId, (text) => {
        clearTimeout(timer);
        resolve(text);
      });
      channel.sendToQueue("fibonacci", Buffer.from(number), { replyTo: queue, correlationId });
    });
    console.log(`fibonacci(${number}) = ${answer}`);
  }
  await channel.close();
  await connection.close();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
