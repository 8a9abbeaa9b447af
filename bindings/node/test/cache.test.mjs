import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { inspect } from 'node:util';
import { after, beforeEach, test } from 'node:test';
import { AmpError, Token, TokenCache, version } from 'amp-token';
import { camel, description, own, startEmulator, until } from './support.mjs';

const emulator = await startEmulator();
after(emulator.stop);
beforeEach(emulator.reset);

function cacheFor(settings = {}) {
    return new TokenCache({ ...emulator.settings, retries: 0, ...settings });
}

const failsWith = (code) => (error) => error instanceof AmpError && error.code === code;

test('a thousand calls share one request and one token', async () => {
    const cache = cacheFor();
    await emulator.faults({ latency_ms: 100 });
    const tokens = await Promise.all(Array.from({ length: 1000 }, () => cache.get()));
    assert.equal(new Set(tokens).size, 1);
    assert.equal(await emulator.requests(), 1);
    assert.equal(cache.stats().requests, 1);
    // One thread asked for all of them.
    assert.equal(cache.stats().waits, 0);
    const [token] = tokens;
    assert.match(token.value, /^eyJ/);
    assert.equal(token.authorization, `Bearer ${token.value}`);
    assert.deepEqual(await cache.headers(), { Authorization: token.authorization });
    assert.ok(token.expiresIn > 200 && token.expiresIn <= 300);
    assert.ok(Math.abs(token.expiresAt.getTime() - Date.now() - token.expiresIn * 1000) < 5000);
    cache.close();
});

test('value() is synchronous while there is a token, and says so if not', async () => {
    const cache = cacheFor();
    assert.throws(() => cache.value(), failsWith('AMP_PENDING'));
    const other = cacheFor();
    assert.equal(other.tryGet(), undefined);
    // Both have sent a request, which must not reach the server in the next test.
    await other.get();
    const token = await cache.get();
    assert.equal(cache.value(), token.value);
    assert.equal(cache.tryGet(), token);
    assert.equal(cache.stats().requests, 1);
});

test('the fast path ends when the wall clock says so, or the counter changes', async () => {
    const cache = cacheFor();
    const first = await cache.get();
    const { now } = Date;
    /** How many of so many calls reach the library. The first one after a renewal does: the counter changed meanwhile. */
    const nativeCalls = (count) => {
        const before = cache.stats().hits;
        for (let i = 0; i < count; i++) assert.equal(cache.value(), first.value);
        return cache.stats().hits - before;
    };
    try {
        assert.ok(nativeCalls(1000) < 10);
        // The wall clock jumps ahead: the library is asked, whose own clock did not.
        Date.now = () => now() + 3600_000;
        assert.equal(nativeCalls(1000), 1000);
    } finally {
        Date.now = now;
    }
    await cache.invalidate(first);
    assert.notEqual(cache.value(), first.value);
    assert.equal(await emulator.requests(), 2);
});

test('a wall clock that is set back does not prolong the fast path', async () => {
    await emulator.expiresIn(2);
    const cache = cacheFor();
    const first = await cache.get();
    const { now } = Date;
    try {
        Date.now = () => now() - 3600_000;
        await until(async () => (await cache.get()).value !== first.value);
    } finally {
        Date.now = now;
    }
});

test('nobody waits while a token is valid', async () => {
    await emulator.expiresIn(10);
    const cache = cacheFor();
    const first = await cache.get();
    // The renewal gets no answer: each call gets the token that is there.
    await emulator.faults({ kind: 'silent', times: 'forever' });
    await until(async () => {
        assert.equal(await cache.get(), first);
        return (await emulator.requests()) === 2;
    });
    assert.equal(await cache.get(), first);
    assert.equal(cache.value(), first.value);
    cache.close();
});

test('a token can be asked for that is valid for longer', async () => {
    await emulator.expiresIn(60);
    const cache = cacheFor();
    const token = await cache.get({ minValidityMs: 1000 });
    assert.equal((await cache.get()).value, token.value);
    await assert.rejects(cache.get({ minValidityMs: 120_000 }), failsWith('AMP_INVALID_ARGUMENT'));
    for (const wrong of [-1, NaN, 'x']) {
        await assert.rejects(cache.get({ minValidityMs: wrong }), failsWith('AMP_INVALID_ARGUMENT'));
    }
    await assert.rejects(cache.get({ minValidityMs: Infinity }), failsWith('AMP_INVALID_ARGUMENT'));
});

test('a failure has a code, details, a stack of each caller, and no secret', async () => {
    await emulator.faults({ status: 429, retry_after: 60, body: 'no: {client_secret}' });
    const cache = cacheFor();
    const outcomes = await Promise.allSettled([cache.get(), cache.get(), cache.headers()]);
    const errors = outcomes.map(({ reason }) => reason);
    assert.equal(new Set(errors).size, 3);
    for (const error of errors) {
        assert.ok(error instanceof AmpError && error instanceof Error);
        assert.equal(error.name, 'AmpError');
        assert.equal(error.code, 'AMP_RATE_LIMITED');
        assert.equal(error.httpStatus, 429);
        assert.equal(error.retryable, true);
        assert.equal(error.attempts, 1);
        assert.ok(error.retryAfterMs > 0 && error.retryAfterMs <= 60_000);
        assert.match(error.stack, /cache\.test\.mjs/);
        assert.ok(!inspect(error).includes(emulator.secret));
    }
    assert.throws(() => cache.value(), failsWith('AMP_RATE_LIMITED'));
    assert.equal(await emulator.requests(), 1);
});

test('one failure does not keep later calls from a token', async () => {
    await emulator.faults({ status: 503 });
    const cache = cacheFor();
    await assert.rejects(cache.get(), failsWith('AMP_SERVER'));
    await until(() => cache.get().then(() => true, failsWith('AMP_TIMEOUT')).catch(() => false));
    assert.equal(await emulator.requests(), 2);
});

test('a rejected token is replaced once', async () => {
    const cache = cacheFor();
    const first = await cache.get();
    assert.equal(await cache.report(first, 200), false);
    assert.equal(await cache.report('some other token', 401), false);
    await emulator.revoke();
    assert.equal(await cache.report(first.value, 401), true);
    const second = await cache.get();
    assert.notEqual(second.value, first.value);
    // The second replacement within a second is refused: the response is the result.
    assert.equal(await cache.report(second.authorization, 401), false);
    assert.equal(await emulator.requests(), 2);
});

test('a 403 is about the token only if its body says so', async () => {
    const cache = cacheFor();
    const token = await cache.get();
    const expired = '{"errors":[{"level":"ERROR","code":"FORBIDDEN","message":"Authorization required."}]}';
    for (const body of ['', 'x'.repeat(1 << 20), '{"errors":[{"code":"MISSING"}]}']) {
        assert.equal(await cache.report(token, 403, body), false);
    }
    assert.equal(await emulator.requests(), 1);
    assert.equal(await cache.report(token, 403, new TextEncoder().encode(expired)), true);
    await assert.rejects(cache.report(token, '403', expired), TypeError);
    await assert.rejects(cache.report({}, 403, expired), TypeError);
    await assert.rejects(cache.report(await cache.get(), 403, {}), TypeError);
});

test('invalidate() requests another token', async () => {
    const cache = cacheFor();
    const first = await cache.get();
    await cache.invalidate(first);
    const second = await cache.get();
    assert.notEqual(second.value, first.value);
    assert.equal(cache.value(), second.value);
    await cache.invalidate(first);
    assert.equal(await cache.get(), second);
    assert.equal(await emulator.requests(), 2);
});

test('a personal access token never expires', async () => {
    const cache = new TokenCache({ personalAccessToken: 'amp_pat_of-a-test', load: false });
    const token = await cache.get();
    assert.equal(token.value, 'amp_pat_of-a-test');
    assert.equal(token.expiresIn, Infinity);
    assert.equal(token.expiresAt, undefined);
    assert.equal(cache.value(), token.value);
    assert.equal(cache.apiUrl, 'https://api.amplience.net');
});

test('settings that are wrong are named', () => {
    assert.throws(() => cacheFor({ clientIdd: 'x' }), (error) => failsWith('AMP_INVALID_ARGUMENT')(error) && /did you mean client_id/.test(error.message));
    assert.throws(() => cacheFor({ clientSecret: 'hu\0sh' }), failsWith('AMP_INVALID_ARGUMENT'));
    assert.throws(() => cacheFor({ timeoutMs: 0 }), failsWith('AMP_INVALID_ARGUMENT'));
    assert.throws(() => cacheFor({ clientSecret: { toString: () => 'hush' } }), (error) => error instanceof TypeError && !/hush/.test(error.message));
    assert.throws(() => cacheFor({ logger: true }), TypeError);
    assert.throws(() => new TokenCache({ load: false }), failsWith('AMP_NO_CREDENTIALS'));
    // Names of the table are understood, too, and what is undefined is not set.
    cacheFor({ timeout_ms: 1000, userAgent: undefined, proxy: null }).close();
});

test('the environment is read, unless it is not to be', () => {
    process.env.AMPLIENCE_RETRIES = 'many';
    try {
        assert.throws(() => new TokenCache({ ...emulator.settings, load: true }), failsWith('AMP_CONFIG'));
        new TokenCache(emulator.settings).close();
    } finally {
        delete process.env.AMPLIENCE_RETRIES;
    }
});

test('a closed cache refuses calls, and its tokens stay valid', async () => {
    const cache = cacheFor();
    const token = await cache.get();
    cache.close();
    cache.close();
    assert.equal(cache.closed, true);
    assert.ok(token.expiresIn > 200);
    for (const call of [() => cache.get(), () => cache.headers(), () => cache.report(token, 401), () => cache.invalidate(token)]) {
        await assert.rejects(call, failsWith('AMP_INVALID_ARGUMENT'));
    }
    for (const call of [() => cache.value(), () => cache.tryGet(), () => cache.stats()]) {
        assert.throws(call, failsWith('AMP_INVALID_ARGUMENT'));
    }
    const disposed = cacheFor();
    disposed[Symbol.dispose ?? Symbol.for('nodejs.dispose')]();
    assert.equal(disposed.closed, true);
});

test('a call that is waiting when the cache is closed completes', async () => {
    await emulator.faults({ latency_ms: 200 });
    const cache = cacheFor();
    const waiting = cache.get();
    cache.close();
    assert.match((await waiting).value, /^eyJ/);
});

test('a program prints the secret; it is given as a list', async () => {
    const cache = cacheFor({ clientSecret: undefined, credentialCommand: ['printf', '%s', emulator.secret] });
    assert.match((await cache.get()).value, /^eyJ/);
    assert.throws(() => cacheFor({ credentialCommand: { 0: 'printf' } }), TypeError);
});

test('log lines come on this thread, without secrets, and a logger may throw', async () => {
    const lines = [];
    const cache = cacheFor({ logLevel: 'debug', logger: (level, line) => lines.push([level, line]) });
    await cache.get();
    assert.ok(lines.some(([level, line]) => level === 'info' && line.includes('got token')), inspect(lines));
    assert.ok(lines.every(([level, line]) => /^(error|warning|info|debug)$/.test(level) && !line.includes(emulator.secret)));
    const throwing = cacheFor({ logger: () => assert.fail('a logger that throws') });
    assert.match((await throwing.get()).value, /^eyJ/);
});

test('a token is not shown by accident', async () => {
    const cache = cacheFor();
    const token = await cache.get();
    for (const text of [String(token), inspect(token), JSON.stringify({ token }), inspect(cache, { showHidden: true, depth: 9 })]) {
        assert.ok(!text.includes(token.value), text);
    }
    assert.throws(() => new Token({}).expiresIn, TypeError);
});

test('require and import give the same classes', () => {
    const required = createRequire(import.meta.url)('amp-token');
    assert.equal(required.TokenCache, TokenCache);
    assert.equal(required.AmpError, AmpError);
    assert.equal(version, description.constants.find(({ name }) => name === 'AMP_TOKEN_VERSION').value);
});

test('the types name every setting, status and statistic', () => {
    const types = own('lib/index.d.cts');
    const block = (start) => types.slice(types.indexOf(start), types.indexOf('\n}', types.indexOf(start)));
    const members = (start) => [...block(start).matchAll(/^    (\w+)\??:/gm)].map(([, name]) => name);
    assert.deepEqual(members('export interface Settings'), description.settings.map(({ name }) => camel(name)));
    assert.deepEqual(members('export interface Statistics'), description.statistics.map(({ name }) => camel(name)));
    assert.deepEqual(Object.keys(cacheFor().stats()), description.statistics.map(({ name }) => camel(name)));
    const kinds = { boolean: 'boolean', integer: 'number' };
    for (const { name, type } of description.settings) {
        const kind = kinds[type] ?? "(string|'off')";
        assert.match(block('export interface Settings'), new RegExp(`    ${camel(name)}\\?: ${kind}`), name);
    }
    const statuses = description.enumerations.find(({ name }) => name === 'amp_status').values.map(({ name }) => name);
    const codes = [...types.slice(types.indexOf('export type Code')).matchAll(/\| '(AMP_\w+)'/g)].map(([, name]) => name);
    assert.deepEqual(codes, statuses.filter((name) => name !== 'AMP_OK'));
});
