// A cluster that is only its API, for work on the app and for its tests:
//
//   node test/fakecluster/main.mjs [--port 8480] [--name oslo] [--nodes 3] [--vms 4]
//        [--fault node|disk|quorum] [--tls DIR]
//
// With --tls it makes a CA and a certificate in DIR and serves HTTPS, so that
// the desktop app can pin it. It prints one JSON line when it is ready.
import { execFileSync } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { FakeCluster } from './server.mjs';

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '8480' },
    host: { type: 'string', default: '127.0.0.1' },
    name: { type: 'string', default: 'oslo' },
    nodes: { type: 'string', default: '3' },
    vms: { type: 'string', default: '4' },
    fault: { type: 'string', default: '' },
    user: { type: 'string', default: 'admin' },
    password: { type: 'string', default: 'drystone-demo' },
    tls: { type: 'string' },
  },
});

function certificates(dir) {
  mkdirSync(dir, { recursive: true });
  const file = (name) => path.join(dir, name);
  const openssl = (...args) => execFileSync('openssl', args, { stdio: 'pipe' });
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl(
    ...['req', '-x509', ...curve, '-days', '30', '-subj', `/CN=drystone ${values.name} CA`],
    ...['-addext', 'basicConstraints=critical,CA:TRUE'],
    ...['-keyout', file('ca.key'), '-out', file('ca.pem')],
  );
  openssl(
    ...['req', '-x509', ...curve, '-days', '7', '-subj', '/CN=node'],
    ...['-CA', file('ca.pem'), '-CAkey', file('ca.key')],
    ...['-addext', `subjectAltName=IP:${values.host},DNS:localhost`],
    ...['-addext', 'basicConstraints=critical,CA:FALSE'],
    ...['-addext', 'extendedKeyUsage=serverAuth'],
    ...['-keyout', file('leaf.key'), '-out', file('leaf.pem')],
  );
  const ca = readFileSync(file('ca.pem'));
  const spki = new X509Certificate(ca).publicKey.export({ type: 'spki', format: 'der' });
  return {
    cert: Buffer.concat([readFileSync(file('leaf.pem')), ca]),
    key: readFileSync(file('leaf.key')),
    spki: createHash('sha256').update(spki).digest('hex'),
  };
}

const tls = values.tls ? certificates(values.tls) : undefined;
const cluster = new FakeCluster({
  ...values,
  nodes: Number(values.nodes),
  vms: Number(values.vms),
  ...(tls ? { tls } : { tls: undefined }),
});
const { port } = await cluster.listen(Number(values.port), values.host);
const url = `${tls ? 'https' : 'http'}://${values.host}:${port}`;
process.stdout.write(JSON.stringify({ url, id: cluster.state.id, spki: tls?.spki ?? '' }) + '\n');
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => void cluster.close().then(() => process.exit(0)));
}
