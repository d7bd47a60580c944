import { IconAlertTriangle } from '@tabler/icons-react';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import type { Cluster, Node } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { LiveNumber, Spark } from '../../parts/charts';
import { useTrouble, VerdictMark } from '../../parts/VerdictMark';
import { verdict } from '../../parts/verdict';
import classes from './overview.module.css';

/** The cluster's counts and totals in one row, and what is wrong with it. */
export function Headline({ cluster, nodes }: { cluster: Cluster; nodes: Node[] }) {
  const { t } = useTranslation();
  const format = useFormat();
  const sentence = useTrouble();
  const { troubles } = verdict(cluster);
  const leader = nodes.find((n) => n.id === cluster.leader);
  const { id } = cluster;
  return (
    <>
      {troubles.length > 0 && (
        <ul className={classes.troubles} role="status">
          {troubles.map((x) => (
            <li key={x.kind}>
              <IconAlertTriangle size={16} aria-hidden="true" />
              {sentence(x)}
            </li>
          ))}
        </ul>
      )}
      <div className={classes.tiles}>
        <Tile
          name={t('overview.nodes')}
          value={`${cluster.nodes_up} / ${cluster.nodes_total}`}
          note={leader ? t('overview.leads', { node: leader.name }) : t('overview.noLeader')}
          bad={cluster.nodes_up < cluster.nodes_total}
        />
        <Tile
          name={t('overview.vms')}
          value={`${cluster.vms_running} / ${cluster.vms_total}`}
          note={cluster.hypervisor ? t('overview.running') : t('overview.noHypervisor')}
        />
        <Tile
          name={t('overview.sync')}
          value={format.count(cluster.columns_out_of_sync)}
          note={t('overview.ofColumns', { count: cluster.columns_total })}
          bad={cluster.columns_out_of_sync > 0}
        />
        <div className={classes.tile}>
          <Spark topic="cluster" id={id} kind="cpu" />
        </div>
        <div className={classes.tile}>
          <Spark topic="cluster" id={id} kind="iops" />
        </div>
        <div className={classes.tile}>
          <Spark topic="cluster" id={id} kind="throughput" />
        </div>
        <Tile
          name={t('metric.latency')}
          value={
            <LiveNumber
              topic="cluster"
              read={(m) => m.value('cluster', id, 'w_lat')}
              write={format.latency}
              name="latency.w_lat"
            />
          }
          note={
            <>
              {t('overview.readLatency')}{' '}
              <LiveNumber
                topic="cluster"
                read={(m) => m.value('cluster', id, 'r_lat')}
                write={format.latency}
              />
            </>
          }
        />
      </div>
    </>
  );
}

Headline.Mark = VerdictMark;

interface TileProps {
  name: string;
  value: ReactNode;
  note: ReactNode;
  bad?: boolean;
}

function Tile({ name, value, note, bad = false }: TileProps) {
  return (
    <div className={classes.tile} data-bad={bad || undefined}>
      <span className={classes.tileName}>{name}</span>
      <span className={classes.tileValue}>{value}</span>
      <span className={classes.tileNote}>{note}</span>
    </div>
  );
}
