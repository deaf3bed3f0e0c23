// How the OpenID Provider is set up: its clients, and what their tokens say.
//
// Two clients use the client credentials grant, so that a test needs one request for a token; oidc-provider makes, signs
// and publishes everything. Form fields of the token request, beyond OAuth's own:
//   client `airflow`: any of RUN_FIELDS becomes the claim `airflow` of a run token
//   client `people`:  user=<name> makes a person's token
//   both:             alg, ttl (seconds), typ, and the JSON objects `claims` and `header`, which overwrite what is signed
import { Provider, errors } from 'oidc-provider';
import { commandLineClient, deviceFlow, issueRefreshToken } from './command_line.mjs';
import { ALGORITHMS } from './keys.mjs';
import { Kept, consoleClient, settings, signingIn } from './sign_in.mjs';

const PEOPLE = {
  alice: ['data-eng'],
  bob: ['cortex-admins', 'data-eng'],
  carol: ['finance-admins'],
  dave: ['auditors'],
  erin: ['finance-admins'],
};

const text = (value) => value;
const list = (value) => value.split(',').filter(Boolean);
const RUN_FIELDS = {
  dag_id: text,
  run_id: text,
  task_id: text,
  map_index: Number,
  try_number: Number,
  ti_id: text,
  run_type: text,
  triggered_by: text,
  triggering_user_name: text,
  team_name: text,
  bundle_name: text,
  bundle_version: text,
  tags: list,
};

/** Signed tokens are not stored. */
class Store extends Kept {
  async upsert(id, payload) {
    if (this.model !== 'ClientCredentials') await super.upsert(id, payload);
  }
}

function runClaims(form) {
  const airflow = Object.fromEntries(Object.entries(RUN_FIELDS)
    .filter(([field]) => form[field] !== undefined)
    .map(([field, read]) => [field, read(form[field])]));
  return { airflow, sub: `airflow:dag:${airflow.dag_id}:task:${airflow.task_id}` };
}

function personClaims({ user }) {
  const groups = PEOPLE[user];
  if (!groups) throw new errors.InvalidRequest(`no such user: ${user}`);
  return { sub: user, groups, email: `${user}@example.test`, name: user };
}

function parsed(form, field) {
  try {
    return JSON.parse(form[field] ?? '{}');
  } catch {
    throw new errors.InvalidRequest(`${field} is not JSON`);
  }
}

function customise(ctx, token, jwt) {
  const form = ctx.oidc.body;
  const claims = token.clientId === 'people' ? personClaims(form) : runClaims(form);
  Object.assign(jwt.payload, claims, parsed(form, 'claims'));
  jwt.header = { typ: form.typ ?? 'JWT', ...parsed(form, 'header') };
  return jwt;
}

function client(clientId, secret) {
  return {
    client_id: clientId,
    client_secret: secret,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  };
}

/** The request handler of a provider that signs with these keys. */
export function provider({ issuer, audience, keys, secret, redirect, commandLine }) {
  const configured = new Provider(issuer, {
    adapter: Store,
    ...settings((user) => personClaims({ user })),
    issueRefreshToken,
    jwks: { keys },
    clients: [
      client('airflow', secret),
      client('people', secret),
      ...(redirect ? [consoleClient(secret, redirect)] : []),
      ...(commandLine ? [commandLineClient(audience)] : []),
    ],
    cookies: { keys: [secret] },
    ttl: {
      ClientCredentials: (ctx, token) => token.resourceServer.accessTokenTTL,
      IdToken: () => commandLine?.id_token_ttl ?? 3600,
    },
    enabledJWA: { idTokenSigningAlgValues: Object.keys(ALGORITHMS) },
    formats: { customizers: { jwt: customise } },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      deviceFlow,
      resourceIndicators: {
        enabled: true,
        defaultResource: (ctx) => (ctx.oidc.client.grantTypeAllowed('client_credentials') ? audience : undefined),
        getResourceServerInfo: (ctx, resource) => ({
          scope: '',
          audience: resource,
          accessTokenFormat: 'jwt',
          accessTokenTTL: Number(ctx.oidc.body?.ttl ?? 300),
          jwt: { sign: { alg: ctx.oidc.body?.alg ?? 'RS256' } },
        }),
      },
    },
  });
  configured.on('server_error', (ctx, error) => console.error('op: server_error', error));
  return signingIn(configured, (user) => user in PEOPLE);
}
