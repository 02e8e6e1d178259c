// A worker of a Millrace queue in Node.js, with an AMQP library and nothing of Millrace.
//
//	npm ci
//	node worker.js amqp://guest:guest@localhost/ squares
//
// It takes part with workers of any other language, and answers clients of any other
// language: in another terminal, try node client.js, or
//
//	seq 1 100 | millrace map squares --tag --broker amqp://guest:guest@localhost/
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

async function main(url, queue) {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();

  // The queue of tasks has the name of the Millrace queue. This makes it, as Millrace
  // would, if it is not there yet.
  await ensureQueue(connection, queue);
  await channel.prefetch(16);

  await channel.consume(queue, (task) => {
    if (task === null) {
      console.error("the queue was deleted");
      process.exit(1);
    }
    const { replyTo, correlationId } = task.properties;
    const ack = () => channel.ack(task);
    if (replyTo === undefined) {
      ack(); // nobody wants an answer
      return;
    }

    // An answer goes, by the default exchange, to the queue that reply-to names, with the
    // correlation-id of its task. What has failed has a header named error.
    const n = Number(task.content.toString());
    const failed = Number.isNaN(n);
    const answer = Buffer.from(failed ? "" : String(n * n));
    const headers = failed ? { error: `${task.content} is not a number` } : {};

    // The task is acked when its answer is safe: a crash means that it runs again.
    channel.sendToQueue(replyTo, answer, { correlationId, headers, persistent: true }, (err) => {
      if (err) {
        channel.nack(task);
      } else {
        ack();
      }
    });
  });
  console.log(`answers the tasks of ${queue}`);
}

const [url, queue] = process.argv.slice(2);
if (queue === undefined) {
  console.error("usage: node worker.js amqp://USER:PASSWORD@HOST/VHOST QUEUE");
  process.exit(2);
}
main(url, queue).catch((err) => {
  console.error(String(err));
  process.exit(1);
});
