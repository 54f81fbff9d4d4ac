// Prints the log lines of the severities asked for, until Ctrl-C.
//
//     node 4_routing/read_log.js warning error
//     node 4_routing/read_log.js info warning error > everything.txt
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
"use strict";

const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@localhost:5672/%2F";
const severities = process.argv.slice(2);
if (severities.length === 0) {
  console.error("usage: read_log.js SEVERITY...   (for example: info warning error)");
  process.exit(1);
}

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertExchange("log", "direct", { durable: false });
  const { queue } = await channel.assertQueue("", { exclusive: true });

  // One binding for each severity; a queue may have as many as it likes.
  for (const severity of severities) {
    await channel.bindQueue(queue, "log", severity);
  }

  process.once("SIGINT", async () => {
    await connection.close();
    console.log("stopped");
    process.exit(0);
  });
  console.log("reading the log, Ctrl-C to stop");

  await channel.consume(queue, ({ fields, content }) => console.log(`${fields.routingKey}: ${content}`), { noAck: true });
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
