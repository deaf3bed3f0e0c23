// Signing people in: the authorization code flow of the provider, with a page that asks who one is. Consent is given.

/** Keeps what a sign-in needs for as long as the provider runs. */
export class Kept {
  static #all = new Map();

  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload) {
    Kept.#all.set(`${this.model}:${id}`, payload);
  }

  async find(id) {
    return Kept.#all.get(`${this.model}:${id}`);
  }

  async findByUid(uid) {
    return [...Kept.#all.values()].find((payload) => payload.uid === uid);
  }

  async findByUserCode(userCode) {
    return [...Kept.#all.values()].find((payload) => payload.userCode === userCode);
  }

  async consume(id) {
    (await this.find(id)).consumed = Math.floor(Date.now() / 1000);
  }

  /** Forgets everything: nobody is signed in any more, and no token refreshes. */
  static clear() {
    Kept.#all.clear();
  }

  async destroy(id) {
    Kept.#all.delete(`${this.model}:${id}`);
  }

  async revokeByGrantId(grantId) {
    for (const [key, payload] of Kept.#all) if (payload.grantId === grantId) Kept.#all.delete(key);
  }
}

/** The client that the console is. */
export function consoleClient(secret, redirect) {
  return {
    client_id: 'cortex-console',
    client_secret: secret,
    redirect_uris: [redirect],
    grant_types: ['authorization_code'],
    response_types: ['code'],
  };
}

/** The provider's settings for signing people in, out of who they are. */
export function settings(claimsOf) {
  return {
    pkce: { required: () => true },
    conformIdTokenClaims: false,
    claims: { openid: ['sub', 'groups', 'auth_time', 'amr', 'acr'], email: ['email'], profile: ['name'] },
    interactions: { url: (ctx, { uid }) => `/interaction/${uid}` },
    findAccount: (ctx, user) => ({ accountId: user, claims: () => claimsOf(user) }),
    loadExistingGrant: async (ctx) => {
      const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
      grant.addOIDCScope('openid email profile offline_access');
      await grant.save();
      return grant;
    },
  };
}

const PAGE = `<!doctype html><html lang="en"><title>Sign in at the company</title>
<form method="post"><label>User <input name="user" autofocus></label><button>Sign in</button></form>`;

async function read(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return new URLSearchParams(text);
}

/** Asks who one is; everything else is the provider's. */
export function signingIn(provider, isKnown) {
  const answer = provider.callback();
  return async (request, response) => {
    if (!request.url.startsWith('/interaction/')) return answer(request, response);
    if (request.method !== 'POST') return response.setHeader('content-type', 'text/html').end(PAGE);
    const user = (await read(request)).get('user');
    if (!isKnown(user)) return response.writeHead(403).end('no such user');
    return provider.interactionFinished(request, response, { login: { accountId: user, amr: ['pwd', 'mfa'] }, consent: {} });
  };
}
