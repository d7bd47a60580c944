import { render, screen } from '@testing-library/react';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Alarm, Cluster } from '../api/types';
import { startI18n } from '../i18n';
import { troubleKey, verdict } from './verdict';
import { useTrouble } from './VerdictMark';

beforeAll(() => startI18n('en'));

const alarm = (severity: Alarm['severity'], text: string): Alarm => ({
  code: 'disk_full',
  severity,
  object: text,
  text,
  since: '2026-01-01T12:00:00Z',
});

const well = {
  quorum: true,
  volumes_unavailable: 0,
  nodes_total: 3,
  nodes_up: 3,
  nodes_maintenance: 0,
  nodes_resting: 0,
  columns_out_of_sync: 0,
} as Cluster;

function Troubles({ cluster }: { cluster: Cluster }) {
  const sentence = useTrouble();
  return verdict(cluster).troubles.map((x) => <p key={troubleKey(x)}>{sentence(x)}</p>);
}

describe('the verdict on a cluster', () => {
  it('is healthy without troubles and alarms', () => {
    expect(verdict(well)).toEqual({ level: 'healthy', troubles: [], maintenance: 0 });
    expect(verdict({ ...well, alarms: [] }).level).toBe('healthy');
  });

  it('says that somebody works on a node, which is no trouble', () => {
    const rests = { ...well, nodes_up: 2, nodes_maintenance: 1, nodes_resting: 1 };
    expect(verdict(rests)).toEqual({ level: 'maintenance', troubles: [], maintenance: 1 });
    expect(verdict({ ...rests, nodes_up: 1 }).troubles).toEqual([{ kind: 'nodes', count: 1 }]);
    expect(verdict({ ...rests, columns_out_of_sync: 1 }).level).toBe('degraded');
  });

  it('is as bad as the worst alarm', () => {
    const level = (...alarms: Alarm[]) => verdict({ ...well, alarms }).level;
    expect(level(alarm('warning', 'a'))).toBe('degraded');
    expect(level(alarm('serious', 'a'))).toBe('degraded');
    expect(level(alarm('warning', 'a'), alarm('critical', 'b'))).toBe('critical');
  });

  it('tells the worst first, and alarms as sentences', () => {
    const alarms = [alarm('warning', 'disk 2 has failed'), alarm('critical', 'the pool is full')];
    const { container } = render(<Troubles cluster={{ ...well, nodes_up: 2, alarms }} />);
    screen.getByText('Disk 2 has failed.');
    expect(container.textContent).toBe('The pool is full.1 node is away.Disk 2 has failed.');
  });
});
