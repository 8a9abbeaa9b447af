'use strict';

/** The adapters for HTTP clients. Each sends the token to the origin of `cache.apiUrl` only, follows no redirect, and sends a
 * request whose token was rejected once more. `invalidArgument` makes an AmpError. */
module.exports = ({ invalidArgument }) => {
    function checkOrigin(cache, url) {
        const { origin } = new URL(url);
        const own = new URL(cache.apiUrl).origin;
        if (origin !== own) {
            throw invalidArgument(`the token is sent to ${own} only, not to ${origin}; use a client without it for other servers`);
        }
    }

    const isRejection = (status) => status === 401 || status === 403;

    /** The first 64 KiB of a body, which stays readable. Not awaited: the cancellation ends with that of the other branch. */
    async function beginning(response) {
        const reader = response.clone().body?.getReader();
        const parts = [];
        for (let size = 0; reader && size < 64 * 1024; ) {
            const { done, value } = await reader.read();
            if (done) break;
            parts.push(value);
            size += value.length;
        }
        reader?.cancel().catch(() => {});
        return Buffer.concat(parts);
    }

    function createFetch(cache, { fetch = globalThis.fetch } = {}) {
        return async function fetchWithToken(input, init = {}) {
            if (init.redirect === 'follow') {
                throw invalidArgument("redirect: 'follow' is not supported: the token would be sent wherever the response says; use 'manual'");
            }
            const isRequest = typeof input === 'object' && 'url' in input;
            const text = isRequest ? input.url : String(input);
            const url = text.startsWith('/') && !text.startsWith('//') ? cache.apiUrl + text : text;
            checkOrigin(cache, url);
            const send = (token) => {
                const headers = Object.fromEntries(new Headers(init.headers ?? (isRequest ? input.headers : undefined)));
                headers.authorization = token.authorization;
                return fetch(isRequest ? input : url, { redirect: 'manual', ...init, headers });
            };
            const token = await cache.get();
            const response = await send(token);
            // A body that is read only once cannot be sent again.
            const body = init.body ?? (isRequest ? input.body : undefined);
            const isStream = typeof body === 'object' && body !== null && (isRequest || 'getReader' in body || Symbol.asyncIterator in body);
            if (!isRejection(response.status) || isStream) return response;
            const rejection = response.status === 403 ? await beginning(response) : '';
            if (!(await cache.report(token, response.status, rejection))) return response;
            response.body?.cancel().catch(() => {});
            return send(await cache.get());
        };
    }

    function attachToAxios(instance, cache) {
        /** The token of each request that was not repeated yet. */
        const tokens = new WeakMap();
        instance.interceptors.request.use(async (config) => {
            // Without a base, axios would send a path to this machine.
            config.baseURL ??= cache.apiUrl;
            checkOrigin(cache, instance.getUri(config));
            // A redirect may lead to another server.
            config.maxRedirects = 0;
            const token = await cache.get();
            config.headers.set('Authorization', token.authorization);
            if (!config.ampTokenRepeated) tokens.set(config, token);
            return config;
        });
        const repeat = async (response) => {
            const { config } = response;
            const token = tokens.get(config);
            const isStream = typeof config.data?.pipe === 'function' || typeof response.data?.pipe === 'function';
            if (!token || isStream || !isRejection(response.status)) return undefined;
            const { data } = response;
            const body = typeof data === 'string' || ArrayBuffer.isView(data) ? data : JSON.stringify(data ?? '');
            if (!(await cache.report(token, response.status, body))) return undefined;
            return instance.request({ ...config, ampTokenRepeated: true });
        };
        instance.interceptors.response.use(
            async (response) => (await repeat(response)) ?? response,
            async (error) => {
                const response = error.response && (await repeat(error.response));
                if (response) return response;
                throw error;
            },
        );
        return instance;
    }

    function createDynamicContent(DynamicContent, cache, config = {}, httpClient = undefined) {
        /** The SDK's HTTP client, which resolves with any status. Links in responses may lead anywhere. */
        const guarded = (client) => ({
            async request(request) {
                checkOrigin(cache, request.url);
                const send = ({ authorization }) =>
                    client.request({ ...request, headers: { ...request.headers, Authorization: authorization } });
                // Not the one that the SDK's header has: report() needs to know which token was rejected.
                const token = await cache.get();
                const response = await send(token);
                const { data, status } = response;
                if (!isRejection(status) || !(await cache.report(token, status, JSON.stringify(data ?? '')))) return response;
                return send(await cache.get());
            },
        });
        // The SDK's constructor calls these methods: fields of a subclass would not be there yet.
        class DynamicContentWithTokenCache extends DynamicContent {
            createTokenClient() {
                return { getAuthHeader: async () => (await cache.get()).authorization };
            }

            createResourceClient(dcConfig, tokenClient, client) {
                return super.createResourceClient(dcConfig, tokenClient, guarded(client));
            }
        }
        const client = httpClient && 'request' in httpClient ? httpClient : { ...httpClient, maxRedirects: 0 };
        return new DynamicContentWithTokenCache({}, { apiUrl: `${cache.apiUrl}/v2/content`, ...config }, client);
    }

    return { createFetch, attachToAxios, createDynamicContent };
};
