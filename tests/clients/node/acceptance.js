// Does what a Node.js client does: four snippets over one bidirectional stream, interleaved, each done.
//
//   npm install
//   node acceptance.js 127.0.0.1:50051 ../../../proto
//
// Exits with 1 and says what is wrong if anything is.
'use strict';

const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const DEADLINE_MS = 600_000;
const TOKENS = 24;
const SNIPPETS = {
  'factorial.py': 'def factorial(n):\n    return 1 if n <= 1 else n * factorial(n - 1)\n',
  'gcd.rs': 'fn gcd(a: u64, b: u64) -> u64 {\n    if b == 0 { a } else { gcd(b, a % b) }\n}\n',
  'debounce.js':
    'function debounce(fn, ms) {\n  let timer;\n  return (...args) => {\n    clearTimeout(timer);\n' +
    '    timer = setTimeout(() => fn(...args), ms);\n  };\n}\n',
  'worker.go':
    'package main\n\nfunc worker(jobs <-chan int, results chan<- int) {\n\tfor job := range jobs {\n' +
    '\t\tresults <- job * 2\n\t}\n}\n',
};

function check(condition, message) {
  if (!condition) throw new Error(message);
}

function connect(address, protoDir) {
  const options = {
    includeDirs: [protoDir],
    keepCase: true,
    longs: Number,
    enums: String,
    // Without it, a field that has its default value (the sequence number 0) is absent.
    defaults: true,
    // Names the event in the field `event`.
    oneofs: true,
  };
  const files = ['explain', 'model'].map((name) => `codeexplainer/v1/${name}.proto`);
  const { v1 } = grpc.loadPackageDefinition(protoLoader.loadSync(files, options)).codeexplainer;
  const target = address.replace(/^http:\/\//, '');
  const credentials = grpc.credentials.createInsecure();
  return {
    explain: new v1.ExplainService(target, credentials),
    model: new v1.ModelService(target, credentials),
  };
}

/** All events of the stream in their order, with the status that it ended with. */
function converse(client) {
  return new Promise((resolve, reject) => {
    const events = [];
    const call = client.ExplainStream({ deadline: Date.now() + DEADLINE_MS });
    call.on('data', (event) => events.push(event));
    call.on('error', reject);
    call.on('status', (status) => resolve({ events, status }));
    for (const [id, code] of Object.entries(SNIPPETS)) {
      call.write({ explain: { id, code, max_new_tokens: TOKENS, include_full_text: true } });
    }
    call.end();
  });
}

/** Ids with a delta between two deltas of another id. */
function interleaved(events) {
  const order = events.filter((event) => event.event === 'delta').map((event) => event.id);
  const between = (id, place) => order.indexOf(id) < place && place < order.lastIndexOf(id);
  const ids = Object.keys(SNIPPETS);
  return new Set(order.filter((id, place) => ids.some((other) => other !== id && between(other, place))));
}

function checkItem(id, own) {
  const deltas = own.filter((event) => event.event === 'delta').map((event) => event.delta);
  const last = own.at(-1);
  check(own[0]?.event === 'accepted', `${id}: the first event is ${own[0]?.event}`);
  check(last.event === 'done', `${id}: the last event is ${last.event}: ${JSON.stringify(last.error)}`);
  check(own.length === deltas.length + 2, `${id}: there are other events than its deltas`);
  check(deltas.every((delta, n) => delta.sequence === n), `${id}: a delta is missing`);
  const text = deltas.map((delta) => delta.text).join('');
  check(text === last.done.full_text, `${id}: the deltas are not the full text`);
  check(last.done.usage.generated_tokens > 0, `${id}: nothing was generated`);
}

async function main([address, protoDir]) {
  if (!protoDir) throw new Error('usage: node acceptance.js ADDRESS PROTO_DIR');
  const clients = connect(address, path.resolve(protoDir));
  try {
    const model = await new Promise((resolve, reject) => {
      const deadline = Date.now() + DEADLINE_MS;
      clients.model.GetModel({}, { deadline }, (error, found) => (error ? reject(error) : resolve(found)));
    });
    console.log(`${model.name} (${model.architecture}) on ${model.device}`);

    const { events, status } = await converse(clients.explain);
    check(status.code === grpc.status.OK, `the stream ended with ${status.code}: ${status.details}`);
    for (const id of Object.keys(SNIPPETS)) {
      checkItem(id, events.filter((event) => event.id === id));
    }
    const mixed = interleaved(events);
    check(mixed.size >= 2, `only ${[...mixed]} came interleaved`);
    const count = Object.keys(SNIPPETS).length;
    console.log(`${count} snippets on one stream, all done; the deltas of ${mixed.size} ids interleaved`);
    console.log('acceptance: passed');
  } finally {
    clients.explain.close();
    clients.model.close();
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`acceptance: FAILED: ${error.message}`);
  process.exitCode = 1;
});
