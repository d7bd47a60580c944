import { createColumnHelper } from '@tanstack/react-table';
import type { ColumnDef } from '@tanstack/react-table';
import { useMemo } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import type { Metrics } from '../../api/metrics';
import type { VM } from '../../api/types';
import { useFormat } from '../../i18n/format';
import type { Format } from '../../i18n/format';
import { LiveNumber } from '../../parts/charts';
import { VMMark } from '../../parts/states';
import classes from './vms.module.css';

type LiveId = 'cpu' | 'memory' | 'reads' | 'writes' | 'latency';

/** Columns whose values change each second. */
export const liveColumns: ReadonlySet<string> = new Set<LiveId>([
  'cpu',
  'memory',
  'reads',
  'writes',
  'latency',
]);

const live: Record<LiveId, { key: string; write: (f: Format) => (n: number) => string }> = {
  cpu: { key: 'cpu', write: (f) => f.percent },
  memory: { key: 'mem_used', write: (f) => f.bytes },
  reads: { key: 'r_iops', write: (f) => f.count },
  writes: { key: 'w_iops', write: (f) => f.count },
  latency: { key: 'w_lat', write: (f) => f.latency },
};

/** A machine that does not run has no numbers, whatever was sampled last. */
function read(m: Metrics, vm: VM, id: LiveId): number | undefined {
  return vm.status.state === 'running' ? m.value('vms', vm.id, live[id].key) : undefined;
}

const helper = createColumnHelper<VM>();

export function useColumns(): ColumnDef<VM, string>[] {
  const { t } = useTranslation();
  const format = useFormat();
  const { metrics } = useConnection();
  return useMemo(() => {
    const number = (id: LiveId, header: string) =>
      // A column sorts only if it has a value; the real one is read when asked.
      helper.accessor((vm) => vm.id, {
        id,
        header,
        sortDescFirst: true,
        sortingFn: (a, b) =>
          (read(metrics, a.original, id) ?? -1) - (read(metrics, b.original, id) ?? -1),
        cell: ({ row: { original: vm } }) => (
          <>
            <LiveNumber
              topic="vms"
              read={(m) => read(m, vm, id)}
              write={live[id].write(format)}
              name={id}
            />
            {id === 'memory' && (
              <span className={classes.of}> / {format.bytes(vm.memory_bytes)}</span>
            )}
          </>
        ),
      });
    return [
      helper.accessor('name', {
        header: t('vm.name'),
        sortingFn: 'alphanumeric',
        cell: (c) => <b title={c.getValue()}>{c.getValue()}</b>,
      }),
      helper.accessor((vm) => vm.status.state, {
        id: 'state',
        header: t('vm.stateTitle'),
        cell: ({ row: { original: vm } }) => (
          <VMMark state={vm.status.state} reason={vm.status.reason} />
        ),
      }),
      helper.accessor('node_name', {
        header: t('vm.node'),
        cell: (c) => c.getValue() || <span className={classes.of}>–</span>,
      }),
      helper.accessor((vm) => String(vm.cpus), {
        id: 'cpus',
        header: t('vm.cpus'),
        sortingFn: (a, b) => a.original.cpus - b.original.cpus,
      }),
      number('cpu', t('metric.cpu')),
      number('memory', t('metric.memory')),
      number('reads', t('vm.reads')),
      number('writes', t('vm.writes')),
      number('latency', t('metric.latency')),
    ] as ColumnDef<VM, string>[];
  }, [t, format, metrics]);
}
