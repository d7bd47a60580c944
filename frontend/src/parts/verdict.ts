import type { Cluster } from '../api/types';

/** What keeps a cluster from being well, worst first. */
export type Trouble =
  | { kind: 'quorum' }
  | { kind: 'unavailable'; count: number }
  | { kind: 'nodes'; count: number }
  | { kind: 'sync'; count: number }
  | { kind: 'full'; share: number };

export interface Verdict {
  level: 'healthy' | 'degraded' | 'critical';
  troubles: Trouble[];
}

/** With this much used beside the reserve, a rebuild may soon not fit. */
const NEARLY_FULL = 0.9;

/** Judges a cluster by its own counts; nothing is guessed. */
export function verdict(c: Cluster): Verdict {
  const troubles: Trouble[] = [];
  if (!c.quorum) troubles.push({ kind: 'quorum' });
  if (c.volumes_unavailable > 0) {
    troubles.push({ kind: 'unavailable', count: c.volumes_unavailable });
  }
  const critical = troubles.length > 0;
  const away = c.nodes_total - c.nodes_up;
  if (away > 0) troubles.push({ kind: 'nodes', count: away });
  if (c.columns_out_of_sync > 0) troubles.push({ kind: 'sync', count: c.columns_out_of_sync });
  const usable = c.pool.size_bytes - c.pool.reserve_bytes;
  const share = usable > 0 ? c.pool.used_bytes / usable : 0;
  if (share >= NEARLY_FULL) troubles.push({ kind: 'full', share });
  const level = critical ? 'critical' : troubles.length > 0 ? 'degraded' : 'healthy';
  return { level, troubles };
}
