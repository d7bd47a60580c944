import type { Network, NetworkChange, NetworkSpec } from '../../api/types';
import { command } from '../../parts/command';

/** Linux gives the name of an interface fifteen characters. */
export function bridgeGood(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/.test(name);
}

/** What differs from what the network is. */
export function changeOf(now: Network, wanted: NetworkSpec): NetworkChange {
  const part: NetworkChange = {};
  if (wanted.name !== now.name) part.name = wanted.name;
  if (now.kind === 'user') return part;
  if ((wanted.bridge ?? '') !== (now.bridge ?? '')) part.bridge = wanted.bridge ?? '';
  if ((wanted.vlan ?? 0) !== now.vlan) part.vlan = wanted.vlan ?? 0;
  const was = now.nodes.map((b) => `${b.node_name}=${b.bridge}`).sort();
  const will = (wanted.nodes ?? []).map((b) => `${b.node}=${b.bridge}`).sort();
  if (was.join() !== will.join()) part.nodes = wanted.nodes ?? [];
  return part;
}

/** The same for the command line tool. */
export function lineOf(spec: NetworkSpec, now?: Network, part?: NetworkChange): string {
  const words = now
    ? ['network', 'edit', now.name]
    : ['network', 'create', spec.name === '' ? 'NAME' : spec.name];
  const given = part ?? spec;
  if (part?.name !== undefined) words.push('--name', part.name);
  if (!now && spec.kind === 'user') words.push('--user');
  if (given.bridge !== undefined) words.push('--bridge', given.bridge);
  for (const b of given.nodes ?? []) words.push('--node', `${b.node}=${b.bridge}`);
  if (given.vlan !== undefined) words.push('--vlan', String(given.vlan));
  return command(...words);
}

/** What is typed about a network. */
export interface Form {
  name: string;
  kind: Network['kind'];
  bridge: string;
  vlan: number;
  /** The bridge of each node where it is called otherwise, by the node's name. */
  own: Record<string, string>;
}

export function formOf(n?: Network): Form {
  if (!n) return { name: '', kind: 'bridge', bridge: '', vlan: 0, own: {} };
  const own = Object.fromEntries(n.nodes.map((b) => [b.node_name, b.bridge]));
  return { name: n.name, kind: n.kind, bridge: n.bridge ?? '', vlan: n.vlan, own };
}

export function nameGood(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name);
}

/** The request, or nothing while the form is not filled in. */
export function specOf(f: Form): { spec: NetworkSpec; good: boolean } {
  const spec: NetworkSpec = { name: f.name, kind: f.kind };
  if (f.kind === 'user') return { spec, good: nameGood(f.name) };
  const own = Object.entries(f.own).filter(([, b]) => b !== '');
  if (f.bridge !== '') spec.bridge = f.bridge;
  if (f.vlan !== 0) spec.vlan = f.vlan;
  if (own.length > 0) spec.nodes = own.map(([node, bridge]) => ({ node, bridge }));
  const bridges = [...own.map(([, b]) => b), ...(f.bridge === '' ? [] : [f.bridge])];
  return { spec, good: nameGood(f.name) && bridges.length > 0 && bridges.every(bridgeGood) };
}
