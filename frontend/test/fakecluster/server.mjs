// The HTTP and websocket side of a fake cluster.
import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { WebSocketServer } from 'ws';
import { Refusal, State } from './state.mjs';

const base = '/api/v1';

async function body(req) {
  const parts = [];
  for await (const part of req) parts.push(part);
  return Buffer.concat(parts);
}

async function json(req) {
  const raw = await body(req);
  if (raw.length === 0) return {};
  try {
    return JSON.parse(raw.toString());
  } catch {
    throw new Refusal(400, 'invalid', 'the body is not JSON');
  }
}

/** The routes that need a session: [method, pattern, handler(ctx)]. */
const routes = [
  ['GET', /^\/session$/, ({ session }) => session],
  ['POST', /^\/logout$/, ({ drop }) => drop()],
  ['POST', /^\/password$/, () => undefined],
  ['GET', /^\/cluster$/, ({ s }) => s.cluster()],
  ['GET', /^\/nodes$/, ({ s }) => ({ items: s.nodeList() })],
  ['GET', /^\/nodes\/([^/]+)$/, ({ s, m }) => s.findNode(m[1])],
  ['POST', /^\/nodes\/([^/]+)\/drain$/, ({ s, m, user }) => s.drainNode(user, m[1], true)],
  ['DELETE', /^\/nodes\/([^/]+)\/drain$/, ({ s, m, user }) => s.drainNode(user, m[1], false)],
  ['DELETE', /^\/nodes\/([^/]+)$/, ({ s, m, user }) => s.removeNode(user, m[1])],
  [
    'POST',
    /^\/nodes\/([^/]+)\/disks$/,
    async (c) => c.s.addDisk(c.user, c.m[1], await json(c.req)),
  ],
  ['POST', /^\/tokens$/, async ({ s, req, user }) => s.createToken(user, await json(req))],
  ['GET', /^\/tokens$/, ({ s }) => ({ items: s.tokens })],
  ['GET', /^\/pool$/, ({ s }) => s.pool()],
  ['GET', /^\/disks$/, ({ s }) => ({ items: s.disks })],
  ['GET', /^\/volumes$/, ({ s }) => ({ items: brief(s.volumes) })],
  ['POST', /^\/volumes$/, async ({ s, req, user }) => s.createVolume(user, await json(req))],
  ['GET', /^\/volumes\/([^/]+)$/, ({ s, m }) => s.findVolume(m[1])],
  [
    'PATCH',
    /^\/volumes\/([^/]+)$/,
    async ({ s, m, req, user }) => s.resizeVolume(user, m[1], (await json(req)).size_bytes),
  ],
  ['DELETE', /^\/volumes\/([^/]+)$/, ({ s, m, user }) => s.deleteVolume(user, m[1])],
  ['GET', /^\/images$/, ({ s }) => ({ items: brief(s.volumes.filter((v) => v.kind === 'image')) })],
  ['POST', /^\/images$/, importImage],
  ['PUT', /^\/files\/([0-9a-f]{64})$/, putFile],
  ['GET', /^\/networks$/, ({ s }) => ({ items: s.networks.map((n) => s.network(n)) })],
  ['POST', /^\/networks$/, async ({ s, req, user }) => s.createNetwork(user, await json(req))],
  ['GET', /^\/networks\/([^/]+)$/, ({ s, m }) => s.network(s.findNetwork(m[1]))],
  [
    'PATCH',
    /^\/networks\/([^/]+)$/,
    async ({ s, m, req, user }) => s.changeNetwork(user, m[1], await json(req)),
  ],
  ['DELETE', /^\/networks\/([^/]+)$/, ({ s, m, user }) => s.deleteNetwork(user, m[1])],
  ['GET', /^\/vms$/, ({ s }) => ({ items: s.vms.map((v) => s.vm(v)) })],
  ['POST', /^\/vms$/, async ({ s, req, user }) => s.createVM(user, await json(req))],
  ['GET', /^\/vms\/([^/]+)$/, ({ s, m }) => s.vm(s.findVM(m[1]))],
  [
    'PATCH',
    /^\/vms\/([^/]+)$/,
    async ({ s, m, req, user }) => s.changeVM(user, m[1], await json(req)),
  ],
  [
    'DELETE',
    /^\/vms\/([^/]+)$/,
    ({ s, m, url, user }) => s.deleteVM(user, m[1], url.searchParams.get('keep_disks') === 'true'),
  ],
  [
    'POST',
    /^\/vms\/([^/]+)\/(start|stop|shutdown|reset)$/,
    async ({ s, m, req, user }) => s.power(user, m[1], m[2], (await json(req)).node),
  ],
  ['POST', /^\/vms\/([^/]+)\/console$/, ({ s, m, ticket }) => ticket(s.findVM(m[1]))],
  ['GET', /^\/tasks$/, ({ s }) => ({ items: s.tasks })],
  ['DELETE', /^\/tasks\/([^/]+)$/, () => undefined],
  [
    'GET',
    /^\/audit$/,
    ({ s, url }) => ({ items: s.audit.slice(0, Number(url.searchParams.get('limit') ?? 100)) }),
  ],
  [
    'GET',
    /^\/vms\/([^/]+)\/history$/,
    ({ s, m, url }) => s.past(m[1], Number(url.searchParams.get('seconds'))),
  ],
  [
    'GET',
    /^\/metrics\/history$/,
    ({ s, url }) =>
      s.metrics(url.searchParams.get('topic'), Number(url.searchParams.get('seconds'))),
  ],
];

const dist = new URL('../../dist/app/', import.meta.url).pathname;
const types = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
};

/** The built app, with the policy that a node sends (frontend/handler.go). */
async function page(res, name) {
  const file = path.join(dist, path.normalize(name === '/' ? '/index.html' : name));
  const content = await readFile(file).catch(() => undefined);
  if (!content) throw new Refusal(404, 'not_found', 'there is no such page');
  res.writeHead(200, {
    'content-type': types[path.extname(file)] ?? 'application/octet-stream',
    'content-security-policy':
      "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:",
  });
  res.end(content);
}

// JSON leaves out what is undefined.
const brief = (volumes) => volumes.map((v) => ({ ...v, columns: undefined }));

async function putFile({ req, m, url }) {
  const bytes = await body(req);
  if (createHash('sha256').update(bytes).digest('hex') !== m[1]) {
    throw new Refusal(400, 'invalid', 'the file does not have this digest');
  }
  return { name: url.searchParams.get('name') ?? 'file', sha256: m[1], size_bytes: bytes.length };
}

async function importImage({ s, req, res, url, user }) {
  const bytes = await body(req);
  const line = (x) => res.write(JSON.stringify(x) + '\n');
  res.writeHead(200, { 'content-type': 'application/x-ndjson' });
  line({ phase: 'upload', done_bytes: bytes.length, total_bytes: bytes.length });
  if (bytes.length < 512) {
    line({ error: { code: 'invalid', detail: 'the file is not an image of this format' } });
  } else {
    for (let step = 1; step <= 4; step++) {
      await new Promise((done) => setTimeout(done, 150));
      line({ phase: 'convert', done_bytes: step * 25, total_bytes: 100 });
    }
    line({ volume: s.importImage(user, url.searchParams.get('name'), bytes.length) });
  }
  res.end();
}

function next(client, topic) {
  const seq = client.topics.get(topic) + 1;
  client.topics.set(topic, seq);
  return seq;
}

export class FakeCluster {
  #sessions = new Map();
  #tickets = new Map();
  #sockets = new Set();
  #server;
  #timer;

  constructor({ user = 'admin', password = 'drystone-demo', tls, ...options } = {}) {
    this.state = new State(options);
    this.user = user;
    this.password = password;
    const handle = (req, res) => void this.#handle(req, res);
    this.#server = tls ? https.createServer(tls, handle) : http.createServer(handle);
    const wss = new WebSocketServer({
      noServer: true,
      handleProtocols: (set) => [...set].find((p) => p.startsWith('drystone.')) ?? false,
    });
    this.#server.on('upgrade', (req, socket, head) => {
      if (!this.#mayUpgrade(req)) {
        socket.end('HTTP/1.1 401 Unauthorized\r\n\r\n');
        return;
      }
      wss.handleUpgrade(req, socket, head, (ws) => {
        if (req.url.endsWith('/live')) this.#live(ws);
        else this.#serial(ws);
      });
    });
    this.state.onChange = (objects) => this.#event({ kind: 'changed', objects });
  }

  listen(port = 0, host = '127.0.0.1') {
    return new Promise((done) => {
      this.#server.listen(port, host, () => {
        this.#timer = setInterval(() => this.#tick(), 1000);
        done(this.#server.address());
      });
    });
  }

  close() {
    clearInterval(this.#timer);
    for (const { ws } of this.#sockets) ws.terminate();
    this.#server.closeAllConnections();
    return new Promise((done) => this.#server.close(done));
  }

  /** Cuts every live stream, as a node that dies does. */
  cut() {
    for (const { ws } of this.#sockets) ws.terminate();
  }

  async #handle(req, res) {
    const url = new URL(req.url, 'http://fake');
    try {
      const answer = await this.#answer(req, res, url);
      if (res.headersSent) return;
      res.writeHead(answer === undefined ? 204 : 200, { 'content-type': 'application/json' });
      res.end(answer === undefined ? undefined : JSON.stringify(answer));
    } catch (err) {
      const status = err instanceof Refusal ? err.status : 500;
      const code = err instanceof Refusal ? err.code : 'internal';
      res.writeHead(status, { 'content-type': 'application/problem+json' });
      const request_id = randomBytes(6).toString('hex');
      const detail = err instanceof Refusal ? err.message : String(err.stack);
      res.end(
        JSON.stringify({ title: http.STATUS_CODES[status], status, detail, code, request_id }),
      );
    }
  }

  async #answer(req, res, url) {
    if (!url.pathname.startsWith(base)) return page(res, url.pathname);
    const route = url.pathname.slice(base.length);
    const s = this.state;
    if (route === '/meta') return this.#meta();
    if (route === '/health') return { status: 'ok', leader: true };
    if (route === '/login') return this.#login(await json(req));
    const token = req.headers.authorization?.replace(/^Bearer /, '');
    const session = this.#sessions.get(token);
    if (!session) throw new Refusal(401, 'unknown', 'log in first');
    const user = session.user.name;
    const drop = () => void this.#sessions.delete(token);
    const ticket = (vm) => this.#ticket(vm);
    for (const [method, pattern, run] of routes) {
      const m = pattern.exec(route);
      if (m && method === req.method) {
        return run({ s, req, res, url, session, user, drop, ticket, m: m.map(decodeURIComponent) });
      }
    }
    throw new Refusal(404, 'not_found', `there is no ${req.method} ${route}`);
  }

  #meta() {
    const { id, name, nodes } = this.state;
    return {
      product: 'drystone',
      version: '0.1.0',
      api: 1,
      cluster_id: id,
      cluster_name: name,
      node_id: nodes[0].id,
      node_name: nodes[0].name,
      capabilities: [],
    };
  }

  #login({ user, password }) {
    if (user !== this.user || password !== this.password) {
      throw new Refusal(401, 'unknown', 'the name or the password is wrong');
    }
    const token = randomBytes(16).toString('hex');
    const expires = new Date(Date.now() + 12 * 3_600_000).toISOString();
    const session = { user: { id: '0000000000001', name: user, role: 'owner' }, expires };
    this.#sessions.set(token, session);
    return { token, ...session };
  }

  #ticket(vm) {
    const ticket = randomBytes(16).toString('hex');
    this.#tickets.set(ticket, vm.name);
    const expires = new Date(Date.now() + 30_000).toISOString();
    return { ticket, expires, url: `${base}/vms/${vm.id}/console/serial` };
  }

  #mayUpgrade(req) {
    const protocols = (req.headers['sec-websocket-protocol'] ?? '').split(',').map((p) => p.trim());
    const of = (prefix) => protocols.find((p) => p.startsWith(prefix))?.slice(prefix.length);
    if (req.url === `${base}/live`) return this.#sessions.has(of('auth.'));
    return this.#tickets.delete(of('ticket.'));
  }

  #live(ws) {
    // Frames are counted by topic, from the subscription on.
    const client = { ws, topics: new Map() };
    this.#sockets.add(client);
    ws.on('close', () => this.#sockets.delete(client));
    ws.on('message', (data) => {
      const { op, topic } = JSON.parse(data.toString());
      if (op === 'subscribe') client.topics.set(topic, 0);
      else client.topics.delete(topic);
    });
  }

  #serial(ws) {
    ws.send(Buffer.from('\r\nWelcome to the fake guest.\r\n# '));
    ws.on('message', (data) => {
      ws.send(Buffer.from(data.toString().replaceAll('\r', '\r\n# ')));
    });
  }

  #tick() {
    const second = this.state.sample();
    for (const client of this.#sockets) {
      for (const topic of client.topics.keys()) {
        if (topic === 'events') continue;
        const seq = next(client, topic);
        client.ws.send(JSON.stringify({ topic, seq, t: second.t, ...second[topic] }));
      }
    }
  }

  #event(event) {
    for (const client of this.#sockets) {
      if (!client.topics.has('events')) continue;
      const seq = next(client, 'events');
      client.ws.send(JSON.stringify({ topic: 'events', seq, t: Date.now(), ...event }));
    }
  }
}
