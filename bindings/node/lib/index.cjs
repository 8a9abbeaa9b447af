'use strict';

const { existsSync, readdirSync } = require('node:fs');
const { join } = require('node:path');

const addon = loadAddon();

/** Set by TokenCache, so that only this module reads the native handle of a Token. */
let handleOf;
const inspect = Symbol.for('nodejs.util.inspect.custom');
const dispose = Symbol.dispose ?? Symbol.for('nodejs.dispose');

/** The first part of a long body is enough for report(). */
const REPORTED_BYTES = 64 * 1024;
/** Log lines that are kept until the next call fetches them. */
const LOG_CAPACITY = 1000;
const LEVELS = [undefined, 'error', 'warning', 'info', 'debug'];
const STATISTICS = [
    'hits', 'waits', 'refreshes', 'failures', 'requests', 'invalidations', 'last_refresh_ms', 'last_status', 'age', 'expires_in',
];

/** What a cache without a token has. */
const NOTHING = { epoch: undefined, until: 0, wall: 0, token: undefined, value: undefined };

function loadAddon() {
    // Node-API is the same in every version of Node; the C library is not.
    const name = `${process.platform}-${process.arch}${process.platform === 'linux' ? '-gnu' : ''}`;
    const prebuilds = join(__dirname, '..', 'prebuilds');
    const path = join(prebuilds, name, 'amp_token.node');
    if (!existsSync(path)) throw new Error(`amp-token has no binary for ${name}; there is ${readdirSync(prebuilds).join(', ')}`);
    try {
        return require(path);
    } catch (cause) {
        throw new Error(`amp-token cannot be loaded: ${cause.message}`, { cause });
    }
}

/** Why a call failed. The documentation is in index.d.cts, as that of all classes here. */
class AmpError extends Error {
    constructor({ code, message, httpStatus, oauthCode, retryable, retryAfterMs, attempts }) {
        super(message);
        this.code = code;
        this.httpStatus = httpStatus || undefined;
        this.oauthCode = oauthCode ?? undefined;
        this.retryable = Boolean(retryable);
        this.retryAfterMs = retryAfterMs >= 0 ? retryAfterMs : undefined;
        this.attempts = attempts ?? 0;
    }

    get name() {
        return 'AmpError';
    }
}

function invalidArgument(message) {
    return new AmpError({ code: 'AMP_INVALID_ARGUMENT', message });
}

/** Runs a native call that throws a plain object on failure. The stack is that of the caller. */
function call(work) {
    try {
        return work();
    } catch (failure) {
        throw failure instanceof Error ? failure : new AmpError(failure);
    }
}

class Token {
    #handle;
    #value;
    #expiresAt;

    constructor(result) {
        this.#handle = result.handle;
        this.#value = result.value;
        this.#expiresAt = result.expiresAt;
    }

    get value() {
        return this.#value;
    }

    get authorization() {
        return `Bearer ${this.#value}`;
    }

    get expiresAt() {
        return this.#expiresAt < 0 ? undefined : new Date(this.#expiresAt * 1000);
    }

    get expiresIn() {
        const seconds = addon.expiresIn(this.#handle);
        return seconds < 0 ? Infinity : seconds;
    }

    toString() {
        return `Token { ${this.#expiresAt < 0 ? 'never expires' : `expires in ${this.expiresIn} s`} }`;
    }

    toJSON() {
        return this.toString();
    }

    [inspect]() {
        return this.toString();
    }

    static {
        handleOf = (token) => token.#handle;
    }
}

class TokenCache {
    /** The native cache; undefined when it is closed. */
    #handle;
    #buffer;
    /** The native counter, which changes whenever the current token does. */
    #epoch;
    #apiUrl;
    #logger;
    /** What the fast path reads: the counter that belongs to the token, and until when, by two clocks, it may be used. */
    #cached = NOTHING;
    /** The native call for a token that is running, which all calls of get() share. */
    #pending;

    constructor({ load = true, logger, ...settings } = {}) {
        if (logger !== undefined && typeof logger !== 'function') {
            throw new TypeError('logger must be a function');
        }
        const list = [];
        for (const [name, given] of Object.entries(settings)) {
            if (given === undefined || given === null) continue;
            const value = name === 'credentialCommand' && Array.isArray(given) ? JSON.stringify(given) : given;
            if (!['string', 'number', 'boolean'].includes(typeof value)) {
                throw new TypeError(`${name} must be a string, a number or a boolean, not ${typeof value}`);
            }
            // It would end the string in C.
            if (String(value).includes('\0')) throw invalidArgument(`${name} contains a NUL character; remove it`);
            list.push(name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), String(value));
        }
        this.#logger = logger;
        const opened = call(() => addon.open(list, Boolean(load), logger ? LOG_CAPACITY : 0));
        this.#handle = opened.handle;
        this.#buffer = opened.epoch;
        this.#epoch = opened.epoch ? new BigUint64Array(opened.epoch) : undefined;
        this.#apiUrl = opened.apiUrl;
        this.#deliver();
    }

    get apiUrl() {
        return this.#apiUrl;
    }

    get closed() {
        return this.#handle === undefined;
    }

    async get({ minValidityMs } = {}) {
        if (minValidityMs !== undefined) return this.#getFor(minValidityMs);
        if (this.#isFresh()) return this.#cached.token;
        return this.#current() ?? (await this.#fetch());
    }

    value() {
        if (this.#isFresh()) return this.#cached.value;
        return this.#tryGet().value;
    }

    tryGet() {
        if (this.#isFresh()) return this.#cached.token;
        try {
            return this.#tryGet();
        } catch (error) {
            if (error.code === 'AMP_PENDING') return undefined;
            throw error;
        }
    }

    async headers() {
        return { Authorization: (await this.get()).authorization };
    }

    async report(token, status, body = '') {
        const handle = this.#open();
        const reported = this.#find(token);
        if (!Number.isInteger(status)) throw new TypeError('status must be an integer');
        if ((status !== 401 && status !== 403) || !reported) return false;
        return this.#run(addon.report(handle, handleOf(reported), status, bytesOf(body)));
    }

    async invalidate(token) {
        const handle = this.#open();
        const rejected = this.#find(token);
        if (!rejected) return;
        // Why there is no other token is for the next call of get() to say.
        await this.#run(addon.invalidate(handle, handleOf(rejected))).then((result) => this.#adopt(result), () => undefined);
    }

    stats() {
        const handle = this.#open();
        return Object.fromEntries(
            STATISTICS.map((name) => [name.replace(/_./g, (end) => end[1].toUpperCase()), addon.statistic(handle, name)]),
        );
    }

    close() {
        const handle = this.#handle;
        if (!handle) return;
        this.#deliver();
        const buffer = this.#buffer;
        this.#handle = this.#buffer = this.#epoch = this.#pending = undefined;
        this.#cached = NOTHING;
        addon.close(handle, buffer);
    }

    [dispose]() {
        this.close();
    }

    [inspect]() {
        return `TokenCache { ${this.closed ? 'closed' : this.#apiUrl} }`;
    }

    #open() {
        if (!this.#handle) throw invalidArgument('the TokenCache is closed; create a new one');
        return this.#handle;
    }

    #isFresh() {
        const cached = this.#cached;
        // The counter first: most tokens end by being replaced.
        return (
            cached.epoch !== undefined &&
            cached.epoch === (this.#epoch ? this.#epoch[0] : addon.epoch(this.#handle)) &&
            addon.now() < cached.until &&
            Date.now() < cached.wall
        );
    }

    /** The token that is still valid but due for refresh, which a thread of the library then does; else undefined. */
    #current() {
        if (!this.#cached.token) return undefined;
        try {
            return this.#tryGet();
        } catch {
            // The blocking call says what is wrong, or waits.
            return undefined;
        }
    }

    #tryGet() {
        const handle = this.#open();
        try {
            return this.#adopt(call(() => addon.tryGet(handle)));
        } finally {
            this.#deliver();
        }
    }

    async #getFor(minValidityMs) {
        const handle = this.#open();
        if (!(minValidityMs >= 0)) throw invalidArgument('minValidityMs must be a number of milliseconds, 0 or more');
        const result = await this.#run(addon.get(handle, Math.min(Math.ceil(minValidityMs), Number.MAX_SAFE_INTEGER)));
        return new Token(result);
    }

    async #fetch() {
        if (!this.#pending) {
            const pending = addon.get(this.#open()).then((result) => this.#adopt(result));
            const done = () => {
                if (this.#pending === pending) this.#pending = undefined;
            };
            this.#pending = pending;
            pending.then(done, done);
        }
        return this.#run(this.#pending);
    }

    /** Awaits a native call. Each caller gets an error of its own, with its own stack. */
    async #run(promise) {
        try {
            return await promise;
        } catch (failure) {
            throw failure instanceof Error ? failure : new AmpError(failure);
        } finally {
            this.#deliver();
        }
    }

    /** Takes over a native token, and keeps it for the fast path. */
    #adopt(result) {
        if (!this.#handle) return new Token(result);
        const token = this.#cached.value === result.value ? this.#cached.token : new Token(result);
        this.#cached = {
            epoch: this.#epoch ? BigInt(result.epoch) : result.epoch,
            until: result.until,
            wall: result.wall,
            token,
            value: result.value,
        };
        return token;
    }

    #find(token) {
        if (token instanceof Token) return token;
        if (typeof token !== 'string') throw new TypeError('token must be a Token or a string');
        const current = this.#cached.token;
        return current && (token === current.value || token === current.authorization) ? current : undefined;
    }

    #deliver() {
        if (!this.#logger) return;
        for (let line; this.#handle && (line = addon.nextLogLine(this.#handle)); ) {
            try {
                this.#logger(LEVELS[line[0]] ?? 'error', line[1]);
            } catch {
                // A logger must not make the call fail that it reports on.
            }
        }
    }
}

function bytesOf(body) {
    if (typeof body === 'string') return Buffer.from(body.slice(0, REPORTED_BYTES)).subarray(0, REPORTED_BYTES);
    if (body instanceof ArrayBuffer) return new Uint8Array(body, 0, Math.min(body.byteLength, REPORTED_BYTES));
    if (ArrayBuffer.isView(body)) {
        return new Uint8Array(body.buffer, body.byteOffset, Math.min(body.byteLength, REPORTED_BYTES));
    }
    throw new TypeError('body must be a string or bytes');
}

module.exports = { AmpError, Token, TokenCache, version: addon.version, ...require('./adapters.cjs')({ invalidArgument }) };
