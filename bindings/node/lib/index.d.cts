/// <reference lib="esnext.disposable" />

/**
 * The settings of a {@link TokenCache}: those of `amp_config_set()` in camel case. One that is not given is read from the
 * environment (`AMPLIENCE_CLIENT_ID` and so on); credentials that are still missing are read from dc-cli's files.
 */
export interface Settings {
    /** The API key. */
    clientId?: string;
    /** The API secret. */
    clientSecret?: string;
    /** A file that contains the API secret; it is read again when the server rejects the secret. */
    clientSecretFile?: string;
    /** A personal access token, instead of an API key and secret. */
    personalAccessToken?: string;
    /** A file that contains the personal access token. */
    personalAccessTokenFile?: string;
    /** A file that contains the API key. */
    clientIdFile?: string;
    /**
     * A program that prints the secret, or a JSON object with the credentials: its name, or a list of its name and its
     * arguments. No shell is involved.
     */
    credentialCommand?: string | readonly string[];
    /** A directory with the files `client_id` and `client_secret`, or `personal_access_token` (`$CREDENTIALS_DIRECTORY`). */
    credentialsDir?: string;
    /** The account: the name of a section of `config.toml`, or the name or ID of a hub of dc-cli. */
    profile?: string;
    /** A file in dc-cli's format, which is searched last for credentials. */
    configFile?: string;
    /** The URL of the token service. */
    authUrl?: string;
    /** The URL of the API. */
    apiUrl?: string;
    /** The time limit of a whole call, including retries and waiting, in milliseconds (30000). */
    timeoutMs?: number;
    /** The time limit for establishing one connection, in milliseconds (5000). */
    connectTimeoutMs?: number;
    /** How many times a failed request is sent again (3). */
    retries?: number;
    /** CA certificates (PEM) to trust in addition to the system's. */
    caFile?: string;
    /** The certificate (PEM) to present if a server requests one. */
    clientCertificate?: string;
    /** The private key (PEM) of `clientCertificate`. */
    clientKey?: string;
    /** The URL of the proxy for https, or `"none"`; by default that of the environment. */
    proxy?: string;
    /** How long a token must still be valid when it is returned, in milliseconds (0). */
    minValidityMs?: number;
    /** Whether a thread of the library refreshes the token, so that no call waits. */
    backgroundRefresh?: boolean;
    /** Not used by this package, which sends no requests to the API itself. */
    maxResponseBytes?: number;
    /** Where encrypted tokens are shared with other processes: `"none"`, `"file"`, or the URL of a Redis server. */
    store?: string;
    /** The directory of the file store. */
    storeDir?: string;
    /** Text to put before the library's own User-Agent. */
    userAgent?: string;
    /** The least severe log lines that are made (`"info"`). */
    logLevel?: 'off' | 'error' | 'warning' | 'info' | 'debug';
}

export interface Options extends Settings {
    /** Whether to read missing settings from the environment and from dc-cli's files (true). */
    load?: boolean;
    /**
     * Receives log lines, which contain no secret. It is called on the thread that uses the cache, after each call that is not
     * answered from memory: the lines of the library's own threads come with the next such call. What it throws is ignored.
     */
    logger?: (level: 'error' | 'warning' | 'info' | 'debug', line: string) => void;
}

/** The statuses of the C interface. Versions to come may add some. */
export type Code =
    | 'AMP_INVALID_ARGUMENT'
    | 'AMP_CONFIG'
    | 'AMP_NO_CREDENTIALS'
    | 'AMP_CREDENTIALS_REJECTED'
    | 'AMP_RESOLVE'
    | 'AMP_CONNECT'
    | 'AMP_TLS'
    | 'AMP_PROXY'
    | 'AMP_TIMEOUT'
    | 'AMP_RATE_LIMITED'
    | 'AMP_SERVER'
    | 'AMP_PROTOCOL'
    | 'AMP_IO'
    | 'AMP_BUFFER_TOO_SMALL'
    | 'AMP_PENDING'
    | 'AMP_INTERNAL'
    | (string & {});

/** A call failed. The message says what failed, why, and what to do about it; it contains no secret. */
export class AmpError extends Error {
    private constructor();
    /** The status, such as `"AMP_TIMEOUT"`. Decide by it: the text of messages may change. */
    readonly code: Code;
    /** The HTTP status of the last response, if there was one. */
    readonly httpStatus: number | undefined;
    /** The error code of the server (RFC 6749, 5.2), such as `"invalid_client"`. */
    readonly oauthCode: string | undefined;
    /** Whether the same call may succeed later although nothing else has changed. */
    readonly retryable: boolean;
    /** How many milliseconds to wait before the next call, counted from the failure; an earlier one fails at once. */
    readonly retryAfterMs: number | undefined;
    /** How many requests the failed call sent or tried to send. */
    readonly attempts: number;
}

/** One access token. It stays valid when its cache is closed. `toString()`, `JSON.stringify()` and `console.log()` do not show it. */
export class Token {
    private constructor();
    /** The token itself. A secret: do not log it. */
    readonly value: string;
    /** The value of an `Authorization` header. A secret: do not log it. */
    readonly authorization: string;
    /** When it expires by this machine's clock; undefined if it never does. */
    readonly expiresAt: Date | undefined;
    /** For how many whole seconds it is still valid, never less than 0; Infinity if it never expires. */
    readonly expiresIn: number;
}

/** Counters of a cache; times in seconds, unless the name says milliseconds, and -1 if there is nothing to tell. */
export interface Statistics {
    /** Native calls that returned a fresh token immediately; those that are answered in JavaScript are not counted. */
    hits: number;
    waits: number;
    refreshes: number;
    failures: number;
    requests: number;
    invalidations: number;
    lastRefreshMs: number;
    lastStatus: number;
    age: number;
    expiresIn: number;
}

/**
 * The current token of one set of credentials: cached, and refreshed before it expires.
 *
 * Create one for each set of credentials and keep it. No method blocks the event loop. A call that is waiting keeps the process
 * alive, as any request does, but delays neither `process.exit()` nor `worker.terminate()`. A worker thread creates a cache of
 * its own; `store` shares the token between threads and processes.
 */
export class TokenCache implements Disposable {
    /**
     * Finds the credentials, for which it may read files; sends nothing.
     *
     * @throws AmpError `AMP_CONFIG` if settings conflict, `AMP_NO_CREDENTIALS` if none were found, `AMP_INVALID_ARGUMENT` if a
     * setting does not exist or its value is not allowed, `AMP_IO` if a file cannot be read
     */
    constructor(options?: Options);

    /** The base URL of the API, without a slash at the end. Send the token nowhere else. */
    readonly apiUrl: string;
    readonly closed: boolean;

    /**
     * Returns a valid token: the cached one while it is valid, otherwise a new one. However many calls are waiting, one request
     * is sent. A token that is due for refresh is returned at once, while a thread of the library refreshes it.
     *
     * @param options.minValidityMs how long the token must still be valid, for a request that takes long
     * @throws AmpError there is no token. After a failure, calls fail with the same error for `retryAfterMs`
     */
    get(options?: { minValidityMs?: number }): Promise<Token>;

    /**
     * Returns the value of a valid token without waiting. For code that runs after a first `await cache.get()`.
     *
     * @throws AmpError `AMP_PENDING` if there is none: one is being requested, for which `await cache.get()` waits
     */
    value(): string;

    /** Like {@link value}, but returns the {@link Token}, or undefined while one is being requested. */
    tryGet(): Token | undefined;

    /** Returns a new object with the `Authorization` header, for any HTTP client. Otherwise like {@link get}. */
    headers(): Promise<{ Authorization: string }>;

    /**
     * Reports the response to a request that was sent with a token, and returns whether to send it again with the token that
     * {@link get} then returns. For 401 and 403; any other status returns false.
     *
     * The status and the body tell whether the server rejected the token: a 401 does, and the 403 by which Amplience responds
     * to an expired token. Another token is then requested. A rejection may also mean that a permission is missing, so
     * replacements are requested at most once a second, later once a minute; in between it returns false, and the response is
     * the result of the request. Call it once for each request.
     *
     * @param token the token, or the current one's value or `Authorization` header
     * @param body the body of the response, or its first 64 KiB; only a 403 needs it
     */
    report(token: Token | string, status: number, body?: string | ArrayBuffer | ArrayBufferView): Promise<boolean>;

    /**
     * Reports that a server rejected a token, and requests another one, if it is still current. Settles when that is there or
     * could not be had; until then, other callers use the current one. Replacements are paced as {@link report} describes.
     */
    invalidate(token: Token | string): Promise<void>;

    /** @throws AmpError the cache is closed */
    stats(): Statistics;

    /**
     * Closes the cache; may be called more than once. Calls that are waiting complete. Later ones fail with
     * `AMP_INVALID_ARGUMENT`. Tokens stay valid. A cache that is not closed is freed by the garbage collector.
     */
    close(): void;
    [Symbol.dispose](): void;
}

/**
 * Returns a `fetch` that sends the token. A path such as `"/v2/content/hubs"` is below `cache.apiUrl`; any other origin is refused
 * with `AMP_INVALID_ARGUMENT`. Redirects are not followed. A request whose token was rejected is sent once
 * more, unless its body is a stream.
 *
 * @param options.fetch the function to call, such as that of undici; by default the global one
 */
export function createFetch<Fetch extends (input: any, init?: any) => Promise<any> = typeof globalThis.fetch>(
    cache: TokenCache,
    options?: { fetch?: Fetch },
): Fetch;

/**
 * Adds interceptors to an axios instance. They send the token to the origin of `cache.apiUrl`, which is also the default of
 * `baseURL`, refuse any other with `AMP_INVALID_ARGUMENT`, follow no redirect, and send a request whose token was rejected once more, unless its body
 * is a stream.
 *
 * @returns the instance
 */
export function attachToAxios<Instance extends { interceptors: any; getUri: any; request: any }>(
    instance: Instance,
    cache: TokenCache,
): Instance;

/**
 * Creates a client of dc-management-sdk-js that gets its tokens from the cache, and sends them to the origin of `cache.apiUrl` only.
 * A request whose token was rejected is sent once more.
 *
 * @param DynamicContent the class, imported from dc-management-sdk-js
 * @param config replaces `apiUrl`
 * @param httpClient the configuration of axios or an HTTP client, as the SDK's constructor takes it
 */
export function createDynamicContent<Class extends new (...parameters: any[]) => any>(
    DynamicContent: Class,
    cache: TokenCache,
    config?: { apiUrl?: string },
    httpClient?: unknown,
): InstanceType<Class>;

/** The version of the native library. */
export const version: string;
