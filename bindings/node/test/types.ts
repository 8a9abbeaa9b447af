// Compiled, not run: the types as programs use them. A line after @ts-expect-error must not compile.
import axios from 'axios';
import { DynamicContent } from 'dc-management-sdk-js';
import { AmpError, TokenCache, attachToAxios, createDynamicContent, createFetch, type Settings, type Token } from 'amp-token';

export async function use(settings: Settings): Promise<string> {
    using cache = new TokenCache({ ...settings, store: 'file', logLevel: 'debug', logger: (level, line) => console.error(level, line) });
    const token: Token = await cache.get({ minValidityMs: 1000 });
    const headers: Record<string, string> = await cache.headers();
    const response: Response = await createFetch(cache)('/v2/content/hubs', { headers });
    const again: boolean = await cache.report(token, response.status, await response.arrayBuffer());
    const instance = attachToAxios(axios.create(), cache);
    await instance.get<string>('/v2/content/hubs');
    const client: DynamicContent = createDynamicContent(DynamicContent, cache, {}, { timeout: 1000 });
    await client.hubs.list();
    try {
        return cache.value();
    } catch (error) {
        if (error instanceof AmpError && error.code === 'AMP_PENDING') return `${error.retryAfterMs ?? 0} ${again}`;
        throw error;
    }
}

// @ts-expect-error a misspelt setting
new TokenCache({ clientID: 'x' });
// @ts-expect-error of the wrong type
new TokenCache({ timeoutMs: '1000' });
// @ts-expect-error only a cache creates tokens
new Token();
