// A client of a Millrace queue in Node.js, with an AMQP library and nothing of Millrace:
// it asks the queue's workers, of whatever language, and prints one answer for each request.
//
//	node client.js amqp://guest:guest@localhost/ squares 1 2 3
"use strict";

const amqp = require("amqplib");

async function ensureQueue(connection, queue) {
  const channel = await connection.createChannel();
  channel.on("error", () => {}); // is the one that is caught below
  try {
    await channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": "quorum" } });
    await channel.close();
  } catch (err) {
    if (err.code !== 406) {
      throw err;
    } // else it is there, with other arguments: so be it
  }
}

async function main(url, queue, inputs) {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();

  // The queue of tasks has the name of the Millrace queue. This makes it, as Millrace
  // would, if it is not there yet: requests wait for workers.
  await ensureQueue(connection, queue);

  // Answers come to a queue of this client alone, which goes with it.
  const { queue: replyTo } = await channel.assertQueue("", { exclusive: true });
  const waiting = new Map(inputs.map((input, i) => [`request-${i}`, input]));
  const done = new Promise((resolve) => {
    const receive = (answer) => {
      const { correlationId, headers } = answer.properties;
      if (!waiting.has(correlationId)) {
        return; // the second answer to a request: the first one counts
      }
      const result = headers?.error === undefined ? answer.content.toString() : `error: ${headers.error}`;
      console.log(`${waiting.get(correlationId)} -> ${result}`);
      waiting.delete(correlationId);
      if (waiting.size === 0) {
        resolve();
      }
    };
    channel.consume(replyTo, receive, { noAck: true });
  });

  // Requests go to the queue of tasks by the default exchange.
  for (const [correlationId, input] of waiting) {
    channel.sendToQueue(queue, Buffer.from(input), { correlationId, replyTo, persistent: true });
  }
  await channel.waitForConfirms();
  await done;
  await connection.close();
}

const [url, queue, ...inputs] = process.argv.slice(2);
if (inputs.length === 0) {
  console.error("usage: node client.js amqp://USER:PASSWORD@HOST/VHOST QUEUE INPUT...");
  process.exit(2);
}
main(url, queue, inputs).catch((err) => {
  console.error(String(err));
  process.exit(1);
});
