// A real OpenID Provider for Cortex's end-to-end tests, on two loopback ports of the system's choice.
//
//   node op.mjs [--audience https://cortex.test] [--host 127.0.0.1]
//
// The first line on standard output is JSON: {"issuer", "control", "secret"}. It ends when its standard input does,
// so that it never outlives the test that started it. The control port takes:
//   POST /rotate {"keep": bool}   new signing keys, with or without the old ones in the JWKS
//   POST /console {"redirect": url}   people sign in for a console, which is called back there
//   POST /command-line {"id_token_ttl": seconds}   people sign in for a command line, by browser or by device code
//   POST /forget {}               every sign-in is over, and every refresh token
//   POST /fault {"path": "/jwks", "mode": "status|delay|drop|garbage|stall", "times": 1, "status": 503, "milliseconds": 100}
//   GET  /counts                  requests by path
//   GET  /keys                    the private keys, for tests that forge
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import { json } from 'node:stream/consumers';
import { parseArgs } from 'node:util';
import { Faults } from './faults.mjs';
import { newKeys } from './keys.mjs';
import { provider } from './provider.mjs';
import { Kept } from './sign_in.mjs';

// Standard output says where we are and nothing else.
console.info = () => {};

const { values: { audience, host } } = parseArgs({
  options: {
    audience: { type: 'string', default: 'https://cortex.test' },
    host: { type: 'string', default: '127.0.0.1' },
  },
});
const secret = randomBytes(24).toString('hex');
const faults = new Faults();
let generation = 1;
let keys = await newKeys(generation);
let redirect;
let commandLine;
let answer;

async function listen(handler, name = '127.0.0.1') {
  const server = http.createServer(handler).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://${name}:${server.address().port}`;
}

function open() {
  answer = provider({ issuer, audience, keys, secret, redirect, commandLine });
}

const CONTROLS = {
  'POST /rotate': async ({ keep }) => {
    generation += 1;
    keys = [...await newKeys(generation), ...(keep ? keys : [])];
    open();
    return keys.map(({ kid }) => kid);
  },
  'POST /console': (client) => {
    redirect = client.redirect;
    open();
    return {};
  },
  'POST /command-line': (client) => {
    commandLine = client;
    open();
    return {};
  },
  'POST /forget': () => Kept.clear() ?? {},
  'POST /fault': (fault) => faults.plan(fault) ?? {},
  'GET /counts': () => faults.counts,
  'GET /keys': () => keys,
};

async function control(request, response) {
  const act = CONTROLS[`${request.method} ${request.url}`];
  if (!act) return response.writeHead(404).end();
  try {
    const done = await act(request.method === 'POST' ? await json(request) : undefined);
    return response.setHeader('content-type', 'application/json').end(JSON.stringify(done));
  } catch (error) {
    return response.writeHead(400).end(String(error));
  }
}

const issuer = await listen((request, response) => faults.handle(request, response, () => answer(request, response)), host);
open();
console.log(JSON.stringify({ issuer, control: await listen(control), secret }));
process.stdin.on('end', () => process.exit(0)).resume();
