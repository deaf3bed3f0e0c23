// The client that the command line is: public, called back on loopback, or signed in by a device code.

/** Its registration; its name is what the tokens for the API carry as their audience. */
export function commandLineClient(audience) {
  return {
    client_id: audience,
    token_endpoint_auth_method: 'none',
    application_type: 'native',
    redirect_uris: ['http://127.0.0.1/callback'],
    grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    response_types: ['code'],
  };
}

/** Whoever may refresh gets what to refresh with. */
export const issueRefreshToken = async (ctx, client) => client.grantTypeAllowed('refresh_token');

const page = (content) => `<!doctype html><html lang="en"><title>Enter the code</title>${content}`;

/** Device codes, on pages without decoration. */
export const deviceFlow = {
  enabled: true,
  userCodeInputSource: async (ctx, form) => { ctx.body = page(form); },
  userCodeConfirmSource: async (ctx, form) => { ctx.body = page(form); },
  successSource: async (ctx) => { ctx.body = page('<p>You can close this page.'); },
};
