// Lists hubs with the official SDK, as its documentation shows, and prints the results as JSON.
//
// Usage: node hubs.js URL CLIENT_ID CLIENT_SECRET, with the SDK in NODE_PATH.

'use strict';

const { DynamicContent } = require('dc-management-sdk-js');

// Creates a token with the documented request and the documented mutation.
async function createPersonalAccessToken(url, clientId, clientSecret) {
    const form = new URLSearchParams({ client_id: clientId, client_secret: clientSecret, grant_type: 'client_credentials' });
    const { access_token: token } = await (await fetch(`${url}/oauth/token`, { method: 'POST', body: form })).json();
    const input = '{name: "of a test", organizationId: "any"}';
    const query = `mutation { createPersonalAccessToken(input: ${input}) { id name token createdDate lastUsedDate } }`;
    const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' };
    const response = await fetch(`${url}/graphql`, { method: 'POST', headers, body: JSON.stringify({ query }) });
    return (await response.json()).data.createPersonalAccessToken.token;
}

async function main([url, clientId, clientSecret]) {
    const config = { apiUrl: `${url}/v2/content`, authUrl: url };
    const client = new DynamicContent({ client_id: clientId, client_secret: clientSecret }, config);
    const page = await client.hubs.list({ size: 1 });
    const first = page.getItems()[0];
    const hub = await client.hubs.get(first.id);
    // A link of the response, whose template the SDK expands.
    const repositories = await hub.related.contentRepositories.list({ size: 7, page: 1 });
    const patToken = await createPersonalAccessToken(url, clientId, clientSecret);
    const withPat = await new DynamicContent({ patToken }, config).hubs.list();
    return {
        total: page.page.totalElements,
        listed: { id: first.id, name: first.name, label: first.label },
        got: { id: hub.id, name: hub.name, label: hub.label, status: hub.status, devices: hub.settings.devices },
        repositories: { total: repositories.page.totalElements, names: repositories.getItems().map((item) => item.name) },
        withPat: withPat.getItems().map((item) => item.name),
    };
}

main(process.argv.slice(2)).then(
    (result) => console.log(JSON.stringify(result)),
    (error) => {
        console.error(String(error));
        process.exit(1);
    }
);
