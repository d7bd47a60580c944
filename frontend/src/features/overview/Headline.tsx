import { IconAlertTriangle, IconShieldCheck, IconTool } from '@tabler/icons-react';
import { useTranslation } from 'react-i18next';
import type { Cluster, Node } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { Spark, StaleNote } from '../../parts/charts';
import { useTrouble } from '../../parts/VerdictMark';
import { troubleKey, verdict } from '../../parts/verdict';
import classes from './overview.module.css';

/** The cluster's counts and totals in one row, and what is wrong with it. */
export function Headline({ cluster, nodes }: { cluster: Cluster; nodes: Node[] }) {
  const { t } = useTranslation();
  const format = useFormat();
  const sentence = useTrouble();
  const { level, troubles, maintenance } = verdict(cluster);
  const { pool, spare } = cluster;
  const leader = nodes.find((n) => n.id === cluster.leader);
  return (
    <>
      {troubles.length > 0 && (
        <ul className={classes.troubles} role="status" data-level={level}>
          {troubles.map((x) => (
            <li key={troubleKey(x)}>
              <IconAlertTriangle size={16} aria-hidden="true" />
              <span>{sentence(x)}</span>
            </li>
          ))}
        </ul>
      )}
      {maintenance > 0 && (
        <p className={classes.maintenance} role="status">
          <IconTool size={16} aria-hidden="true" />
          {t('overview.maintenance', { count: maintenance })}
        </p>
      )}
      {cluster.hypervisor && <Room spare={spare} nodes={nodes} />}
      <StaleNote topic="cluster" id={cluster.id} />
      <div className={classes.tiles}>
        <Count
          name={t('overview.nodes')}
          value={`${cluster.nodes_up} / ${cluster.nodes_total}`}
          note={leader ? t('overview.leads', { node: leader.name }) : t('overview.noLeader')}
          bad={cluster.nodes_up + cluster.nodes_resting < cluster.nodes_total}
        />
        <Count
          name={t('overview.vms')}
          value={`${cluster.vms_running} / ${cluster.vms_total}`}
          note={cluster.hypervisor ? t('overview.running') : t('overview.noHypervisor')}
        />
        <Count
          name={t('overview.sync')}
          value={format.count(cluster.columns_out_of_sync)}
          note={t('overview.ofColumns', { count: cluster.columns_total })}
          bad={cluster.columns_out_of_sync > 0}
        />
        <Count
          name={t('overview.pool')}
          value={pool.size_bytes > 0 ? format.percent(pool.used_bytes / pool.size_bytes) : '–'}
          note={t('overview.ofBytes', { size: format.bytes(pool.size_bytes) })}
          bad={troubles.some((x) => x.kind === 'alarm' && x.alarm.object === 'pool')}
        />
        {live.map((kind) => (
          <div key={kind} className={classes.tile}>
            <Spark topic="cluster" id={cluster.id} kind={kind} large />
          </div>
        ))}
      </div>
    </>
  );
}

interface RoomProps {
  spare: Cluster['spare'];
  nodes: Node[];
}

/** What the nodes have for machines, and whether that survives the loss of one. */
function Room({ spare, nodes }: RoomProps) {
  const { t } = useTranslation();
  const format = useFormat();
  const lost = nodes.find((n) => n.id === spare.loss_of);
  const short = spare.loss_vms > 0;
  const Icon = short ? IconAlertTriangle : IconShieldCheck;
  return (
    <div className={classes.room} data-room={short ? 'short' : 'enough'}>
      <Icon size={16} aria-hidden="true" />
      <span>
        {lost && (
          <b role={short ? 'status' : undefined}>
            {short
              ? t('overview.loss', {
                  count: spare.loss_vms,
                  node: lost.name,
                  size: format.bytes(spare.loss_memory_bytes),
                })
              : t('overview.lossNone')}{' '}
          </b>
        )}
        {t('overview.promised', {
          memory: format.bytes(spare.memory_promised_bytes),
          of: format.bytes(spare.memory_bytes),
          cpus: format.count(spare.cpus_promised),
          ofCPUs: format.count(spare.cpus),
        })}
      </span>
    </div>
  );
}

const live = ['cpu', 'iops', 'throughput', 'latency'] as const;

interface CountProps {
  name: string;
  value: string;
  note: string;
  bad?: boolean;
}

function Count({ name, value, note, bad = false }: CountProps) {
  return (
    <div className={classes.count} data-bad={bad || undefined}>
      <span className={classes.countName} title={name}>
        {name}
      </span>
      <span className={classes.countLine}>
        <b>{value}</b>
        <span title={note}>{note}</span>
      </span>
    </div>
  );
}
