// Amplience's SDK; peer.h describes the modes. Node has one thread, so a "thread" is a promise here.
//
// The class that caches the token is not exported, but every client of the SDK uses it.

const directory = "dc-management-sdk-js/build/main/lib";
const { Oauth2AuthHeaderProvider } = require(`${directory}/oauth2/services/Oauth2AuthHeaderProvider`);
const { AxiosHttpClient } = require(`${directory}/http/AxiosHttpClient`);

const BATCH = 1000;

async function main() {
  const [mode = "token", number = "1", seconds = "0.2"] = process.argv.slice(2);
  const { AUTH_URL, CLIENT_ID, CLIENT_SECRET } = process.env;
  const provider = new Oauth2AuthHeaderProvider(
    { client_id: CLIENT_ID, client_secret: CLIENT_SECRET },
    { authUrl: AUTH_URL },
    new AxiosHttpClient({}),
  );
  if (mode === "token") {
    console.log((await provider.getToken()).access_token);
  } else if (mode === "series") {
    for (let i = 0; i < Number(number); i++) await provider.getAuthHeader();
  } else if (mode === "herd") {
    await Promise.all(Array.from({ length: Number(number) }, () => provider.getAuthHeader()));
  } else if (mode === "gets") {
    await provider.getAuthHeader();
    const begin = process.hrtime.bigint();
    const end = begin + BigInt(Math.round(Number(seconds) * 1e9));
    let made = 0;
    while (process.hrtime.bigint() < end) {
      for (let i = 0; i < BATCH; i++) await provider.getAuthHeader();
      made += BATCH;
    }
    console.log((made / (Number(process.hrtime.bigint() - begin) / 1e9)).toFixed(1));
  } else {
    throw new Error(`unknown mode: ${mode}`);
  }
}

main();
