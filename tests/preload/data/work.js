// Churns Buffers, JSON, Maps, compression and worker threads; prints the same
// in every run.
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { createHash } = require('crypto');
const { execFileSync } = require('child_process');
const zlib = require('zlib');

let seed = 11;
function random(limit) {
  seed = (seed * 16807) % 2147483647;
  return seed % limit;
}

function digest(data) {
  return createHash('sha256').update(data).digest('hex');
}

// Buffers above the pool size come from malloc.
function buffers(rounds) {
  const live = new Map();
  const hash = createHash('sha256');
  for (let i = 0; i < rounds; i++) {
    const key = random(2000);
    const old = live.get(key);
    if (old !== undefined) hash.update(old.subarray(0, 16));
    live.set(key, Buffer.alloc(1 + random(20000), i & 255));
  }
  return hash.digest('hex');
}

function documents(rounds) {
  const hash = createHash('sha256');
  for (let i = 0; i < rounds; i++) {
    const value = {};
    for (let j = 0; j < 2000; j++) value['key' + j] = [random(1000), 'text \u00e9'.repeat(random(10)), { deep: [j, null, true] }];
    const text = JSON.stringify(value);
    if (JSON.stringify(JSON.parse(text)) !== text) throw new Error('JSON differs');
    hash.update(text);
  }
  return hash.digest('hex');
}

function compressed(rounds) {
  const out = [];
  for (let i = 0; i < rounds; i++) {
    const data = Buffer.from('some text that repeats '.repeat(1000 + random(20000)));
    const packed = zlib.deflateSync(data);
    if (!zlib.inflateSync(packed).equals(data)) throw new Error('zlib differs');
    const brotli = zlib.brotliCompressSync(data, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } });
    if (!zlib.brotliDecompressSync(brotli).equals(data)) throw new Error('brotli differs');
    out.push(packed.length, brotli.length);
  }
  return out.join(' ');
}

if (isMainThread) {
  const scale = Number(process.argv[2]);
  console.log('buffers', buffers(60000 * scale));
  console.log('documents', documents(60 * scale));
  console.log('compressed', compressed(20 * scale));
  for (let i = 0; i < 4; i++) {
    console.log('child', digest(execFileSync(process.execPath, ['-e', `console.log("x".repeat(${i * 50000}))`])));
  }
  const workers = [1, 2, 3, 4].map((n) => new Promise((resolve, reject) => {
    const worker = new Worker(__filename, { workerData: { n, scale } });
    worker.on('message', resolve);
    worker.on('error', reject);
  }));
  Promise.all(workers).then((results) => {
    for (const result of results) console.log('worker', result.n, result.text, digest(Buffer.from(result.bytes)));
  });
} else {
  seed = workerData.n;
  const bytes = new ArrayBuffer(1000000);
  new Uint8Array(bytes).fill(workerData.n);
  const text = buffers(15000 * workerData.scale) + documents(15 * workerData.scale);
  // The block moves to the other thread and is freed there.
  parentPort.postMessage({ n: workerData.n, text, bytes }, [bytes]);
}
