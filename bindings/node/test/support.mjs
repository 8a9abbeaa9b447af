// Shared by the tests: the emulator, and what the repository says of the interface. AMP_EMULATOR is the program, AMP_ROOT the
// repository.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

export const description = JSON.parse(readFileSync(`${process.env.AMP_ROOT}/include/amp_token.json`, 'utf8'));
export const own = (name) => readFileSync(new URL(`../${name}`, import.meta.url), 'utf8');
export const camel = (name) => name.replace(/_./g, (end) => end[1].toUpperCase());

for (const name of Object.keys(process.env)) {
    if (name.startsWith('AMPLIENCE_') || name.toLowerCase().endsWith('_proxy')) delete process.env[name];
}

/** Starts an emulator, which ends with the tests. */
export async function startEmulator() {
    const child = spawn(process.env.AMP_EMULATOR, [], { stdio: ['ignore', 'pipe', 'inherit'] });
    const lines = {};
    for await (const line of createInterface({ input: child.stdout })) {
        const [name, value] = line.split(/=(.*)/s);
        lines[name] = value;
        if (name === 'repository_id') break;
    }
    const admin = async (path, body) => {
        const method = path === 'stats' ? 'GET' : 'POST';
        const text = typeof body === 'string' ? body : JSON.stringify(body);
        const response = await fetch(`${lines.url}/_emulator/${path}`, { method, body: body && text });
        if (!response.ok) throw new Error(await response.text());
        return response.json();
    };
    return {
        url: lines.url,
        hubId: lines.hub_id,
        secret: lines.client_secret,
        /** The settings of a cache for it, and of a process as variables. */
        settings: { clientId: lines.client_id, clientSecret: lines.client_secret, authUrl: lines.url, apiUrl: lines.url, load: false },
        environment: {
            AMPLIENCE_CLIENT_ID: lines.client_id,
            AMPLIENCE_CLIENT_SECRET: lines.client_secret,
            AMPLIENCE_AUTH_URL: lines.url,
            AMPLIENCE_API_URL: lines.url,
        },
        reset: () => admin('reset'),
        faults: (...faults) => admin('faults', faults),
        expiresIn: (seconds) => admin('expires_in', { seconds }),
        revoke: () => admin('revoke'),
        stats: () => admin('stats'),
        requests: async () => (await admin('stats')).token_requests,
        stop: () => child.kill(),
    };
}

/** Repeats until the condition is true: for what other threads do. */
export async function until(condition) {
    for (let left = 3000; left > 0; left--) {
        if (await condition()) return;
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`never true: ${condition}`);
}
