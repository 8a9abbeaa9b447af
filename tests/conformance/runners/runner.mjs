// The conformance runner of the Node.js package: ../README.md describes the commands and answers. The package is in the directory
// AMP_TOKEN_PACKAGE.

import { createInterface } from 'node:readline';

const { AmpError, TokenCache } = await import(`${process.env.AMP_TOKEN_PACKAGE}/lib/index.mjs`);
const converted = { true: true, false: false };
let cache, last, started;

function failed(error) {
    if (!(error instanceof AmpError)) throw error;
    const { code, httpStatus, retryable, retryAfterMs, oauthCode } = error;
    return `${code} ${httpStatus ?? 0} ${retryable} ${retryAfterMs ?? -1} ${oauthCode ?? '-'}`;
}

async function got(token) {
    last = await token;
    return `AMP_OK ${last.value}`;
}

const commands = {
    open(rest) {
        const settings = rest.split(' ').filter(Boolean).map((setting) => setting.split(/=(.*)/s).slice(0, 2));
        cache = new TokenCache(Object.fromEntries(settings.map(([name, value]) => [name, converted[value] ?? value])));
        return 'AMP_OK';
    },
    get: (rest) => got(cache.get(rest ? { minValidityMs: Number(rest) } : undefined)),
    async threads(rest) {
        const tokens = await Promise.all(Array.from({ length: Number(rest) }, () => cache.get()));
        return `AMP_OK ${new Set(tokens.map((token) => token.value)).size}`;
    },
    start() {
        started = cache.get();
        return 'AMP_OK';
    },
    join: () => got(started),
    token: () => `AMP_OK ${last.value}`,
    expires_in: () => String(last.expiresIn),
    async report(rest) {
        const [status, body] = rest.split(/ (.*)/s);
        return String(await cache.report(last, Number(status), body));
    },
    async invalidate() {
        await cache.invalidate(last);
        return 'AMP_OK';
    },
    stat: (name) => String(cache.stats()[name.replace(/_./g, (end) => end[1].toUpperCase())] ?? -1),
    close() {
        cache.close();
        return 'AMP_OK';
    },
};

for await (const line of createInterface({ input: process.stdin })) {
    const [command, rest = ''] = line.split(/ (.*)/s);
    let answer = 'unsupported';
    try {
        answer = commands[command] ? await commands[command](rest) : answer;
    } catch (error) {
        answer = failed(error);
    }
    process.stdout.write(`${answer}\n`);
}
process.exit(0);
