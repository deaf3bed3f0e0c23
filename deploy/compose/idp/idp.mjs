// The identity provider of docker-compose.yml: four people, no passwords. For trying Cortex on one machine alone.
//
//   node idp.mjs [--port 4000] [--console http://localhost:8080]
//
// The console signs in as `cortex-console`, the command line as `cortex-cli`; both are public clients with PKCE. Keys are
// new at each start, and nothing is kept.
import http from 'node:http';
import { parseArgs } from 'node:util';
import { exportJWK, generateKeyPair } from 'jose';
import { Provider } from 'oidc-provider';

const PEOPLE = {
  alice: ['data-eng'],
  bob: ['cortex-admins'],
  carol: ['ledger-admins'],
  dave: ['auditors'],
};

const { values: { port, console: cortex } } = parseArgs({
  options: {
    port: { type: 'string', default: '4000' },
    console: { type: 'string', default: 'http://localhost:8080' },
  },
});

const { privateKey } = await generateKeyPair('RS256', { modulusLength: 2048, extractable: true });
const key = { ...await exportJWK(privateKey), alg: 'RS256', use: 'sig', kid: String(Date.now()) };

const client = (clientId, uris, more = {}) => ({
  client_id: clientId,
  token_endpoint_auth_method: 'none',
  redirect_uris: uris,
  grant_types: ['authorization_code'],
  response_types: ['code'],
  ...more,
});

const page = (content) => `<!doctype html><html lang="en"><title>Sign in</title>
<style>body { font: 1rem system-ui; margin: 4rem auto; max-width: 24rem } button { display: block; margin: .5rem 0 }</style>
${content}`;

const provider = new Provider(`http://localhost:${port}`, {
  jwks: { keys: [key] },
  clients: [
    client('cortex-console', [`${cortex}/console/callback`]),
    client('cortex-cli', ['http://127.0.0.1/callback'], {
      application_type: 'native',
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    }),
  ],
  pkce: { required: () => true },
  conformIdTokenClaims: false,
  claims: { openid: ['sub', 'groups', 'auth_time', 'amr'], email: ['email'], profile: ['name'] },
  features: {
    devInteractions: { enabled: false },
    deviceFlow: {
      enabled: true,
      userCodeInputSource: async (ctx, form) => { ctx.body = page(form); },
      userCodeConfirmSource: async (ctx, form) => { ctx.body = page(form); },
      successSource: async (ctx) => { ctx.body = page('<p>You can close this page.'); },
    },
  },
  interactions: { url: (ctx, { uid }) => `/interaction/${uid}` },
  findAccount: (ctx, user) => PEOPLE[user] && {
    accountId: user,
    claims: () => ({ sub: user, groups: PEOPLE[user], email: `${user}@example.test`, name: user }),
  },
  issueRefreshToken: async (ctx, known) => known.grantTypeAllowed('refresh_token'),
  // Whoever signs in consents.
  loadExistingGrant: async (ctx) => {
    const { client: known, session } = ctx.oidc;
    const grant = new provider.Grant({ clientId: known.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid email profile offline_access');
    await grant.save();
    return grant;
  },
});

async function field(request, name) {
  let text = '';
  for await (const chunk of request) {
    text += chunk;
    if (text.length > 1024) break;
  }
  return new URLSearchParams(text).get(name);
}

const answer = provider.callback();
const buttons = Object.entries(PEOPLE)
  .map(([user, groups]) => `<button name="user" value="${user}">${user} (${groups.join(', ')})</button>`).join('');

http.createServer(async (request, response) => {
  if (!request.url.startsWith('/interaction/')) return answer(request, response);
  if (request.method !== 'POST') {
    return response.setHeader('content-type', 'text/html').end(page(`<form method="post"><p>Who are you?${buttons}</form>`));
  }
  const user = await field(request, 'user');
  if (!Object.hasOwn(PEOPLE, user ?? '')) return response.writeHead(403).end('no such user');
  try {
    const login = { accountId: user, amr: ['pwd', 'mfa'] };
    return await provider.interactionFinished(request, response, { login, consent: {} });
  } catch {
    return response.writeHead(400).end('this sign-in is over: begin again');
  }
}).listen(Number(port), '0.0.0.0', () => console.log(`identity provider on http://localhost:${port}`));
