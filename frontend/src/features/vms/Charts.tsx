import { SegmentedControl } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useVMHistory } from '../../api/queries';
import type { VM, VMHistory } from '../../api/types';
import { Await } from '../../parts/Await';
import { MetricChart, PastChart } from '../../parts/charts';
import { Panel } from '../../ui/Panel';
import classes from './vms.module.css';

/** How far the charts look back, in seconds; the first are the minutes that move. */
const ranges = { live: 300, hour: 3600, day: 86_400, month: 30 * 86_400, years: 730 * 86_400 };
type Range = keyof typeof ranges;
const names = Object.keys(ranges) as Range[];

const kinds = ['cpu', 'memory', 'iops', 'throughput', 'latency'] as const;
const HEIGHT = 150;

/** What a machine does, and what it did on all the nodes it was on. */
export function Charts({ vm }: { vm: VM }) {
  const { t } = useTranslation();
  const [range, setRange] = useState<Range>('live');
  return (
    <div className={classes.past}>
      <SegmentedControl
        className={classes.range}
        size="xs"
        aria-label={t('vm.range.title')}
        value={range}
        onChange={setRange}
        data={names.map((value) => ({ value, label: t(`vm.range.${value}`) }))}
      />
      {range === 'live' ? (
        <div className={classes.charts}>
          {kinds.map((kind) => (
            <Panel key={kind}>
              <MetricChart
                topic="vms"
                id={vm.id}
                kind={kind}
                height={HEIGHT}
                axes
                span={ranges.live}
                max={kind === 'memory' ? vm.memory_bytes : undefined}
              />
            </Panel>
          ))}
        </div>
      ) : (
        <Past vm={vm} span={ranges[range]} />
      )}
    </div>
  );
}

/** Whether nothing at all is known of the time. */
function nothing({ series }: VMHistory): boolean {
  return Object.values(series).every((column) => column.every((x) => x === null));
}

function Past({ vm, span }: { vm: VM; span: number }) {
  const { t } = useTranslation();
  const query = useVMHistory(vm.id, span);
  return (
    <Await query={query}>
      {(past) => (
        <>
          {nothing(past) && (
            <p className={classes.text} role="status">
              {t('vm.range.nothing')}
            </p>
          )}
          {past.missing.length > 0 && (
            <p className={classes.text} role="status">
              {t('vm.range.missing', { nodes: past.missing.join(', ') })}
            </p>
          )}
          <div className={classes.charts}>
            {kinds.map((kind) => (
              <Panel key={kind}>
                <PastChart
                  past={past}
                  kind={kind}
                  height={HEIGHT}
                  span={span}
                  max={kind === 'memory' ? vm.memory_bytes : undefined}
                />
              </Panel>
            ))}
          </div>
        </>
      )}
    </Await>
  );
}
