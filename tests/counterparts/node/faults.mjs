// What can be made to go wrong on a path of the provider, a given number of times.

/** Counts requests by path, and answers them wrongly where it was told to. */
export class Faults {
  #planned = new Map();

  counts = {};

  /** `{path, mode, times, status, milliseconds}`; without a path, nothing goes wrong any more. */
  plan({ path, times = 1, ...fault }) {
    if (path === undefined) this.#planned.clear();
    else this.#planned.set(path, { ...fault, times });
  }

  /** Passes the request on, or not. */
  handle(request, response, pass) {
    const path = request.url.split('?')[0];
    this.counts[path] = (this.counts[path] ?? 0) + 1;
    const fault = this.#planned.get(path);
    if (!fault || fault.times === 0) return pass();
    fault.times -= 1;
    switch (fault.mode) {
      case 'status': return response.writeHead(fault.status).end();
      case 'delay': return setTimeout(pass, fault.milliseconds);
      case 'drop': return request.socket.destroy();
      case 'garbage': return response.writeHead(200, { 'content-type': 'application/json' }).end('{"keys": [');
      case 'stall': return undefined;
      default: throw new Error(`unknown fault: ${fault.mode}`);
    }
  }
}
