import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { after, beforeEach, test } from 'node:test';
import axios from 'axios';
import sdk from 'dc-management-sdk-js';
import { fetch as undiciFetch } from 'undici';
import { AmpError, TokenCache, attachToAxios, createDynamicContent, createFetch } from 'amp-token';
import { startEmulator, until } from './support.mjs';

const emulator = await startEmulator();
// A server that must see no token.
const elsewhere = createServer((request, response) => {
    seen.push(request.headers.authorization);
    response.end('{}');
}).listen(0, '127.0.0.1');
const seen = [];
await once(elsewhere, 'listening');
const elsewhereUrl = `http://127.0.0.1:${elsewhere.address().port}`;
let cache;
after(() => {
    emulator.stop();
    elsewhere.close();
});
beforeEach(async () => {
    await emulator.reset();
    seen.length = 0;
    cache = new TokenCache({ ...emulator.settings, retries: 0 });
});

const REFUSED = { name: 'AmpError', code: 'AMP_INVALID_ARGUMENT' };
const clients = {
    fetch: () => {
        const send = createFetch(cache);
        return async (path) => (await send(path)).status;
    },
    'undici fetch': () => {
        const send = createFetch(cache, { fetch: undiciFetch });
        return async (path) => (await send(new URL(path, cache.apiUrl))).status;
    },
    'fetch with a Request': () => {
        const send = createFetch(cache);
        return async (path) => (await send(new Request(new URL(path, cache.apiUrl), { headers: { accept: 'application/json' } }))).status;
    },
    axios: () => {
        const instance = attachToAxios(axios.create(), cache);
        return (path) => instance.get(path).then(({ status }) => status, (error) => error.response?.status ?? Promise.reject(error));
    },
    'axios that accepts any status': () => {
        const instance = attachToAxios(axios.create({ baseURL: cache.apiUrl, validateStatus: null }), cache);
        return async (path) => (await instance.get(path)).status;
    },
    'dc-management-sdk-js': () => {
        const client = createDynamicContent(sdk.DynamicContent, cache);
        return async (path) => {
            try {
                await client.client.fetchResource(path.replace('/v2/content', ''), sdk.HubsPage ?? Object.assign(function Any() {}, { prototype: { setClient() {} } }));
                return 200;
            } catch (error) {
                if (error instanceof AmpError) throw error;
                return Number(/status code (\d+)/.exec(error.message)?.[1]) || Promise.reject(error);
            }
        };
    },
};

for (const [name, create] of Object.entries(clients)) {
    test(`${name}: one token for many requests`, async () => {
        const send = create();
        const statuses = await Promise.all(Array.from({ length: 20 }, () => send('/v2/content/hubs')));
        assert.deepEqual(new Set(statuses), new Set([200]));
        assert.equal(await emulator.requests(), 1);
        assert.equal((await emulator.stats()).rejected, 0);
    });

    test(`${name}: a rejected token is replaced, and the request repeated once`, async () => {
        const send = create();
        assert.equal(await send('/v2/content/hubs'), 200);
        await emulator.revoke();
        assert.equal(await send('/v2/content/hubs'), 200);
        assert.equal(await emulator.requests(), 2);
        // Rejected for good: the response is the result.
        await emulator.faults({ path: '/v2/', status: 401, times: 'forever' });
        const before = (await emulator.stats()).api_requests;
        assert.equal(await send('/v2/content/hubs'), 401);
        assert.ok((await emulator.stats()).api_requests - before <= 2);
    });

    test(`${name}: many rejections at once cost one token`, async () => {
        const send = create();
        assert.equal(await send('/v2/content/hubs'), 200);
        await emulator.revoke();
        const statuses = await Promise.all(Array.from({ length: 10 }, () => send('/v2/content/hubs')));
        assert.deepEqual(new Set(statuses), new Set([200]));
        assert.equal(await emulator.requests(), 2);
    });

    test(`${name}: a missing permission is the result`, async () => {
        const send = create();
        await emulator.faults({ path: '/v2/', status: 403, body: { errors: [{ code: 'MISSING' }] }, times: 'forever' });
        assert.equal(await send('/v2/content/hubs'), 403);
        const { api_requests, token_requests } = await emulator.stats();
        assert.deepEqual([api_requests, token_requests], [1, 1]);
    });

    test(`${name}: the token goes to one origin only`, async () => {
        const send = create();
        await assert.rejects(send(`${elsewhereUrl}/v2/content/hubs`), REFUSED);
        assert.deepEqual(seen, []);
    });
}

test('fetch: bodies are sent again, streams are not, redirects are not followed', async () => {
    const send = createFetch(cache);
    const body = JSON.stringify({ label: 'a label', body: {} });
    const post = (body, more) => send(`/v2/content/hubs`, { method: 'POST', body, headers: [['Content-Type', 'application/json']], ...more });
    const expired = { path: '/v2/', status: 401 };
    await emulator.faults(expired, { path: '/v2/', status: 200, body: '{request_body}' });
    const response = await post(body);
    assert.equal(response.status, 200);
    await emulator.faults(expired, { path: '/v2/', status: 200 });
    assert.equal((await post(Readable.toWeb(Readable.from([body])), { duplex: 'half' })).status, 401);
    await emulator.faults({ path: '/v2/', status: 302, headers: { Location: elsewhereUrl } });
    assert.equal((await send('/v2/content/hubs')).status, 302);
    await assert.rejects(send('/v2/content/hubs', { redirect: 'follow' }), REFUSED);
    assert.deepEqual(seen, []);
});

test('fetch: of a 403 only the beginning is read to decide, and the caller gets all of it', async () => {
    const send = createFetch(cache);
    const body = 'x'.repeat(3 << 20);
    await emulator.faults({ path: '/v2/', status: 403, body });
    const response = await send('/v2/content/hubs');
    assert.equal(response.status, 403);
    assert.equal((await response.text()).length, body.length);
    // A body without an end: the first bytes of it decide, and the caller may cancel.
    await emulator.faults({ path: '/v2/', status: 403, body, kind: 'slow', interval_ms: 0 });
    const slow = await send('/v2/content/hubs');
    assert.equal(slow.status, 403);
    await slow.body.cancel();
});

test('axios and the SDK: redirects are not followed', async () => {
    const redirect = { path: '/v2/', status: 302, headers: { Location: elsewhereUrl } };
    await emulator.faults(redirect);
    await assert.rejects(attachToAxios(axios.create({ maxRedirects: 5 }), cache).get('/v2/content/hubs'), { name: 'AxiosError' });
    await emulator.faults(redirect);
    await assert.rejects(createDynamicContent(sdk.DynamicContent, cache).hubs.list());
    assert.deepEqual(seen, []);
});

test('axios: a body is sent again as it was', async () => {
    const instance = attachToAxios(axios.create({ baseURL: cache.apiUrl }), cache);
    await emulator.faults({ path: '/v2/', status: 401 }, { path: '/v2/', status: 200, body: '{request_body}' });
    const body = { label: 'a label', body: { nested: ['ü'] } };
    assert.deepEqual((await instance.post('/v2/content/hubs', body)).data, body);
    await emulator.faults({ path: '/v2/', status: 401 }, { path: '/v2/', status: 200 });
    await assert.rejects(instance.post('/v2/content/hubs', Readable.from(['x'])), { name: 'AxiosError' });
});

test('dc-management-sdk-js: resources, links and the HTTP configuration', async () => {
    const client = createDynamicContent(sdk.DynamicContent, cache, {}, { timeout: 10_000 });
    assert.ok(client instanceof sdk.DynamicContent);
    const page = await client.hubs.list({ size: 1 });
    const hub = await client.hubs.get(page.getItems()[0].id);
    const repositories = await hub.related.contentRepositories.list({ size: 7, page: 1 });
    assert.equal(repositories.page.totalElements, 45);
    assert.equal(await emulator.requests(), 1);
});

test('dc-management-sdk-js: two renewals, one request each', async () => {
    await emulator.expiresIn(2);
    const client = createDynamicContent(sdk.DynamicContent, cache);
    let calls = 0;
    await until(async () => {
        await Promise.all(Array.from({ length: 10 }, () => client.hubs.list({ size: 1 })));
        calls += 10;
        return cache.stats().refreshes === 3;
    });
    assert.ok(calls >= 30);
    const { token_requests, rejected, api_requests } = await emulator.stats();
    assert.deepEqual([token_requests, rejected, api_requests], [3, 0, calls]);
});
