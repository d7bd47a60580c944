import type { Alarm, Cluster } from '../api/types';

/** What keeps a cluster from being well, worst first. */
export type Trouble =
  | { kind: 'quorum' }
  | { kind: 'unavailable'; count: number }
  | { kind: 'nodes'; count: number }
  | { kind: 'sync'; count: number }
  | { kind: 'alarm'; alarm: Alarm };

export interface Verdict {
  level: 'healthy' | 'maintenance' | 'degraded' | 'critical';
  troubles: Trouble[];
  /** How many nodes somebody works on, which is no trouble. */
  maintenance: number;
}

/** What tells one trouble from the others of a cluster. */
export function troubleKey(x: Trouble): string {
  return x.kind === 'alarm' ? `${x.alarm.code} ${x.alarm.object}` : x.kind;
}

/** Judges a cluster by its own counts and alarms; nothing is guessed. */
export function verdict(c: Cluster): Verdict {
  const troubles: Trouble[] = [];
  if (!c.quorum) troubles.push({ kind: 'quorum' });
  if (c.volumes_unavailable > 0) {
    troubles.push({ kind: 'unavailable', count: c.volumes_unavailable });
  }
  const alarms = c.alarms ?? [];
  const grave = alarms.filter((a) => a.severity === 'critical');
  troubles.push(...grave.map(alarmed));
  const critical = troubles.length > 0;
  const away = c.nodes_total - c.nodes_up - c.nodes_resting;
  if (away > 0) troubles.push({ kind: 'nodes', count: away });
  if (c.columns_out_of_sync > 0) troubles.push({ kind: 'sync', count: c.columns_out_of_sync });
  troubles.push(...alarms.filter((a) => !grave.includes(a)).map(alarmed));
  const maintenance = c.nodes_maintenance;
  const well = maintenance > 0 ? 'maintenance' : 'healthy';
  const level = critical ? 'critical' : troubles.length > 0 ? 'degraded' : well;
  return { level, troubles, maintenance };
}

function alarmed(alarm: Alarm): Trouble {
  return { kind: 'alarm', alarm };
}
