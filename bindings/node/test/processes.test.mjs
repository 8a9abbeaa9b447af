import assert from 'node:assert/strict';
import { spawnSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { lookup } from 'node:dns/promises';
import { after, beforeEach, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { TokenCache } from 'amp-token';
import { startEmulator, until } from './support.mjs';

const emulator = await startEmulator();
after(emulator.stop);
beforeEach(emulator.reset);

const PACKAGE = JSON.stringify(new URL('../lib/index.cjs', import.meta.url).pathname);
const PROLOGUE = `const { TokenCache } = require(${PACKAGE}); const cache = new TokenCache({ timeoutMs: 600_000 });`;

/** Runs a program in a process of its own, in which calls would wait for ten minutes; it must not. */
function run(program) {
    const env = { ...process.env, ...emulator.environment };
    return spawn(process.execPath, ['-e', PROLOGUE + program], { env, stdio: ['ignore', 'pipe', 'pipe'] });
}

async function outcome(child) {
    let output = '';
    child.stdout.on('data', (data) => (output += data));
    child.stderr.on('data', (data) => (output += data));
    const [code, signal] = await once(child, 'close');
    return { code, signal, output };
}

const silent = () => emulator.faults({ kind: 'silent', times: 'forever' });

test('process.exit() does not wait for a call', async () => {
    await silent();
    const child = run('process.on("SIGTERM", () => process.exit(7)); for (let i = 0; i < 20; i++) cache.get({ minValidityMs: i });');
    const ended = outcome(child);
    await until(async () => (await emulator.requests()) === 1);
    child.kill('SIGTERM');
    const { code, output } = await ended;
    assert.equal(code, 7, output);
});

test('an uncaught exception does not wait for a call', async () => {
    await silent();
    const { code, output } = await outcome(run('cache.get(); setTimeout(() => { throw new Error("made up by a test") }, 50);'));
    assert.equal(code, 1);
    assert.match(output, /made up by a test/);
});

test('a waiting call keeps the process alive, and a cache does not', async () => {
    await emulator.faults({ latency_ms: 100 });
    const { code, output } = await outcome(run('cache.get().then((token) => console.log(token.value.slice(0, 3)));'));
    assert.deepEqual([code, output], [0, 'eyJ\n']);
    assert.equal(spawnSync(process.execPath, ['-e', PROLOGUE], { env: { ...process.env, ...emulator.environment } }).status, 0);
});

test('workers have caches of their own, and share a store', async () => {
    const settings = { ...emulator.settings };
    const code = `
        const { workerData, parentPort } = require('node:worker_threads');
        const { TokenCache } = require(${PACKAGE});
        new TokenCache(workerData).get().then((token) => parentPort.postMessage(token.value));`;
    const workers = [1, 2, 3].map(() => new Worker(code, { eval: true, workerData: settings }));
    const values = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]));
    assert.equal(new Set(values).size, 3);
    await Promise.all(workers.map((worker) => worker.terminate()));
});

test('worker.terminate() does not wait for calls, and the process survives it', async () => {
    await silent();
    const code = `
        const { workerData, parentPort } = require('node:worker_threads');
        const { TokenCache } = require(${PACKAGE});
        const cache = new TokenCache({ ...workerData, timeoutMs: 600_000, logger() {} });
        for (let i = 0; i < 4; i++) cache.get({ minValidityMs: i });
        cache.get();
        parentPort.postMessage('started');`;
    for (let i = 0; i < 20; i++) {
        const worker = new Worker(code, { eval: true, workerData: emulator.settings });
        await once(worker, 'message');
        await worker.terminate();
    }
    await emulator.reset();
    const cache = new TokenCache(emulator.settings);
    assert.match((await cache.get()).value, /^eyJ/);
});

test('calls that wait do not take the threads of files and name lookups', async () => {
    await silent();
    const cache = new TokenCache({ ...emulator.settings, timeoutMs: 2000, retries: 0 });
    const waiting = Array.from({ length: 50 }, (_, i) => cache.get({ minValidityMs: i }).catch(({ code }) => code));
    let over = false;
    Promise.all(waiting).then(() => (over = true));
    await readFile(new URL(import.meta.url));
    await lookup('localhost');
    assert.equal(over, false);
    assert.deepEqual(new Set(await Promise.all(waiting)), new Set(['AMP_TIMEOUT']));
});
