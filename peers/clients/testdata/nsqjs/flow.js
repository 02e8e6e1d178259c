// Publishes with nsqjs, consumes with nsqjs, and prints what came: each message's body
// with the number of its last attempt. The argument is JSON: tcp (HOST:PORT), lookupd
// (optional), topic, count, and options for the client.
const nsq = require(process.env.NSQJS)
const { tcp, lookupd, topic, count, options } = JSON.parse(process.argv[2])

const wanted = new Set()
const attempts = {}

const fail = (what) => (err) => { console.error(what, err); process.exit(1) }
const promised = (start) => new Promise((resolve, reject) => start((err) => (err ? reject(err) : resolve())))

async function publish(writer) {
  for (let i = 0; i < count; i++) wanted.add(`single${i}`)
  const batch = Array.from({ length: count }, (_, i) => `batch${i}`)
  batch.forEach((body) => wanted.add(body))
  for (const body of ['late', 'requeue', 'touch', 'ünï\u0000']) wanted.add(body)

  for (let i = 0; i < count; i++) await promised((done) => writer.publish(topic, `single${i}`, done))
  await promised((done) => writer.publish(topic, batch, done))
  await promised((done) => writer.deferPublish(topic, ['late'], 100, done)) // an array, whatever its README says
  for (const body of ['requeue', 'touch', 'ünï\u0000']) await promised((done) => writer.publish(topic, body, done))
}

function consume() {
  const where = lookupd ? { lookupdHTTPAddresses: [lookupd], lookupdPollInterval: 1, lookupdPollJitter: 0.1 } : { nsqdTCPAddresses: [tcp] }
  const reader = new nsq.Reader(topic, 'nsqjs', { maxInFlight: 20, messageTimeout: 1000, outputBufferTimeout: 25, ...where, ...options })
  reader.on('error', fail('reader'))
  reader.on('message', (msg) => {
    const body = msg.body.toString()
    attempts[body] = msg.attempts
    if (body === 'requeue' && msg.attempts < 3) return msg.requeue(50, false)
    if (body === 'touch') {
      for (const after of [500, 1000]) setTimeout(() => msg.touch(), after)
      return setTimeout(() => finish(reader, msg, body), 1500)
    }
    return finish(reader, msg, body)
  })
  reader.connect()
}

function finish(reader, msg, body) {
  msg.finish()
  wanted.delete(body)
  if (wanted.size > 0) return
  console.log(JSON.stringify(attempts))
  setTimeout(() => process.exit(0), 100) // for the last finish to be written
}

const [host, port] = tcp.split(':')
const writer = new nsq.Writer(host, Number(port), options)
writer.on('error', fail('writer'))
writer.on('ready', () => publish(writer).then(consume, fail('publish')))
writer.connect()
