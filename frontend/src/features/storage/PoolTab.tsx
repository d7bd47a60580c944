import { Table } from '@mantine/core';
import { IconServer2 } from '@tabler/icons-react';
import { useTranslation } from 'react-i18next';
import { useDisks, usePool, useVolumes } from '../../api/queries';
import type { Disk } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { Await } from '../../parts/Await';
import { LiveNumber } from '../../parts/charts';
import { PoolBar } from '../../parts/PoolBar';
import { Repairs } from '../../parts/Repairs';
import { DiskMark } from '../../parts/states';
import { Empty } from '../../ui/Empty';
import { Facts } from '../../ui/Facts';
import { Meter } from '../../ui/Meter';
import { Panel } from '../../ui/Panel';
import classes from './storage.module.css';

/** The pool by its sum and by its disks. */
export function PoolTab() {
  const { t } = useTranslation();
  const format = useFormat();
  const pool = usePool();
  const disks = useDisks();
  const volumes = useVolumes();
  return (
    <div className={classes.stack}>
      <div className={`${classes.two} ${classes.level}`}>
        <Panel title={t('pool.title')}>
          <Await query={pool}>{(p) => <PoolBar pool={p} />}</Await>
          <Repairs volumes={volumes.data ?? []} />
        </Panel>
        <Panel title={t('pool.numbers')}>
          <Await query={pool}>
            {(p) => (
              <Facts
                items={[
                  [t('pool.size'), format.bytes(p.size_bytes)],
                  [t('pool.provisioned'), format.bytes(p.provisioned_bytes)],
                  [t('pool.disksOnline'), `${p.disks_online} / ${p.disks_total}`],
                  [t('overview.sync'), format.count(p.columns_out_of_sync)],
                ]}
              />
            )}
          </Await>
        </Panel>
      </div>
      <Panel title={t('storage.disks')} flush>
        <Await query={disks}>{(list) => <Disks disks={list} />}</Await>
      </Panel>
    </div>
  );
}

function Disks({ disks }: { disks: Disk[] }) {
  const { t } = useTranslation();
  const format = useFormat();
  if (disks.length === 0) {
    return (
      <Empty
        icon={<IconServer2 size={26} />}
        title={t('disk.empty.title')}
        text={t('disk.empty.text')}
      />
    );
  }
  const sorted = disks.toSorted(
    (a, b) => a.node_name.localeCompare(b.node_name) || a.path.localeCompare(b.path),
  );
  return (
    <Table.ScrollContainer minWidth={700}>
      <Table className={classes.table} highlightOnHover>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>{t('vm.node')}</Table.Th>
            <Table.Th>{t('disk.path')}</Table.Th>
            <Table.Th>{t('vm.stateTitle')}</Table.Th>
            <Table.Th>{t('pool.used')}</Table.Th>
            <Table.Th className={classes.number}>{t('metric.iops')}</Table.Th>
            <Table.Th className={classes.number}>{t('metric.throughput')}</Table.Th>
            <Table.Th className={classes.number}>{t('metric.latency')}</Table.Th>
            <Table.Th className={classes.number}>{t('disk.sums')}</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {sorted.map((d) => (
            <DiskRow key={d.id} disk={d} />
          ))}
        </Table.Tbody>
      </Table>
      <p className={classes.foot}>{t('disk.sumsText', { total: format.count(total(disks)) })}</p>
    </Table.ScrollContainer>
  );
}

function total(disks: Disk[]): number {
  return disks.reduce((sum, d) => sum + d.checksum_errors, 0);
}

function DiskRow({ disk: d }: { disk: Disk }) {
  const { t } = useTranslation();
  const format = useFormat();
  const share = d.size_bytes > 0 ? d.used_bytes / d.size_bytes : 0;
  const live = (keys: string[], write: (n: number) => string) => (
    <LiveNumber topic="disks" read={(m) => m.sum('disks', d.id, keys)} write={write} />
  );
  return (
    <Table.Tr>
      <Table.Td>{d.node_name}</Table.Td>
      <Table.Td>
        <code title={d.id}>{d.path}</code>
        {d.error !== undefined && d.error !== '' && <p className={classes.error}>{d.error}</p>}
      </Table.Td>
      <Table.Td>
        <DiskMark state={d.state} />
      </Table.Td>
      <Table.Td className={classes.usage}>
        <Meter
          height={6}
          parts={[{ label: t('pool.used'), share, color: 'var(--mantine-primary-color-filled)' }]}
        />
        <span>
          {format.bytes(d.used_bytes)} / {format.bytes(d.size_bytes)}
        </span>
      </Table.Td>
      <Table.Td className={classes.number}>{live(['r_iops', 'w_iops'], format.count)}</Table.Td>
      <Table.Td className={classes.number}>{live(['r_bps', 'w_bps'], format.rate)}</Table.Td>
      <Table.Td className={classes.number}>{live(['w_lat'], format.latency)}</Table.Td>
      <Table.Td className={classes.number} data-bad={d.checksum_errors > 0 || undefined}>
        {format.count(d.checksum_errors)} / {format.count(d.repaired)}
      </Table.Td>
    </Table.Tr>
  );
}
