import { ActionIcon, Badge, Button, ColorSwatch, Menu } from '@mantine/core';
import { IconDots, IconEye, IconLock, IconLogin2, IconTrash } from '@tabler/icons-react';
import { useQueryClient } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection, useLink, useTopics, useWorld } from '../../api/context';
import { deskCall } from '../../api/desk';
import type { DeskCluster } from '../../api/desk';
import { useCluster } from '../../api/queries';
import type { Cluster } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { Spark } from '../../parts/charts';
import { PoolBar } from '../../parts/PoolBar';
import { Problem } from '../../parts/Problem';
import { useRun } from '../../parts/useRun';
import { useTrouble, VerdictMark } from '../../parts/VerdictMark';
import { troubleKey, verdict } from '../../parts/verdict';
import { RemoveCluster } from './RemoveCluster';
import classes from './clusters.module.css';
import { colors } from './colors';

/** One cluster at a glance. One that is away stays, with its last numbers and their age. */
export function ClusterCard({ desk }: { desk: DeskCluster }) {
  const { t } = useTranslation();
  const cluster = useCluster();
  useTopics('cluster', 'events');
  const refused = !desk.logged_in || cluster.error?.code === 'unknown';
  return (
    <article
      className={classes.card}
      style={{ borderTopColor: desk.color }}
      data-cluster={desk.name}
    >
      <header className={classes.head}>
        <Link to="/c/$cluster" params={{ cluster: desk.id }} className={classes.name}>
          <span title={desk.name}>{desk.name}</span>
        </Link>
        {desk.read_only && (
          <Badge variant="light" color="gray" leftSection={<IconEye size={12} />}>
            {t('cluster.readOnly')}
          </Badge>
        )}
        {cluster.data && !cluster.error && <VerdictMark cluster={cluster.data} />}
        <CardMenu desk={desk} />
      </header>
      {!refused && <Away desk={desk} />}
      {refused ? (
        <div className={classes.login}>
          <IconLock size={26} />
          <p>{t('cluster.loginText', { user: desk.user })}</p>
          <Link to="/c/$cluster" params={{ cluster: desk.id }}>
            <Button component="span" leftSection={<IconLogin2 size={16} />}>
              {t('login.submit')}
            </Button>
          </Link>
        </div>
      ) : (
        <Inside query={cluster} />
      )}
    </article>
  );
}

function Inside({ query }: { query: ReturnType<typeof useCluster> }) {
  if (query.data) {
    return (
      <div className={classes.inside} data-old={query.error ? true : undefined}>
        <Numbers cluster={query.data} />
      </div>
    );
  }
  if (query.error) return <Problem error={query.error} retry={() => void query.refetch()} />;
  return <div className={classes.waiting} />;
}

function Numbers({ cluster }: { cluster: Cluster }) {
  const { t } = useTranslation();
  const sentence = useTrouble();
  const { troubles } = verdict(cluster);
  const { id } = cluster;
  return (
    <>
      <ul className={classes.troubles}>
        {troubles.map((x) => (
          <li key={troubleKey(x)}>{sentence(x)}</li>
        ))}
      </ul>
      <dl className={classes.counts}>
        <div>
          <dt>{t('overview.nodes')}</dt>
          <dd>
            {cluster.nodes_up} / {cluster.nodes_total}
          </dd>
        </div>
        <div>
          <dt>{t('overview.vms')}</dt>
          <dd>
            {cluster.vms_running} / {cluster.vms_total}
          </dd>
        </div>
        <div>
          <dt>{t('overview.sync')}</dt>
          <dd>{cluster.columns_out_of_sync}</dd>
        </div>
      </dl>
      <div className={classes.sparks}>
        <Spark topic="cluster" id={id} kind="cpu" />
        <Spark topic="cluster" id={id} kind="memory" />
        <Spark topic="cluster" id={id} kind="iops" />
        <Spark topic="cluster" id={id} kind="latency" />
      </div>
      <PoolBar pool={cluster.pool} brief />
    </>
  );
}

/** Says that a cluster is away, and since when its numbers stand still. */
function Away({ desk }: { desk: DeskCluster }) {
  const { t } = useTranslation();
  const format = useFormat();
  const connection = useConnection();
  const link = useLink();
  if (link === 'open') return null;
  const at = connection.lastContact;
  if (at === undefined) return null;
  return (
    <p className={classes.away} role="status">
      {t('stale.away', { time: format.time(at), name: desk.name })}
    </p>
  );
}

function CardMenu({ desk }: { desk: DeskCluster }) {
  const { t } = useTranslation();
  const { platform } = useWorld();
  const queries = useQueryClient();
  const { run } = useRun();
  const [removing, setRemoving] = useState(false);
  const change = (body: { color?: string; read_only?: boolean }) =>
    run(async () => {
      await deskCall(platform, `/clusters/${desk.id}`, { method: 'PATCH', body });
      await queries.invalidateQueries({ queryKey: ['desk'] });
    });
  return (
    <>
      <Menu position="bottom-end" withinPortal>
        <Menu.Target>
          <ActionIcon
            variant="subtle"
            color="gray"
            aria-label={t('cluster.actions', { name: desk.name })}
          >
            <IconDots size={18} />
          </ActionIcon>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Label>{t('cluster.color')}</Menu.Label>
          <div className={classes.swatches}>
            {colors.map((c) => (
              <ColorSwatch
                key={c.value}
                component="button"
                size={20}
                color={c.value}
                withShadow={c.value === desk.color}
                aria-label={t(`color.${c.name}`)}
                aria-pressed={c.value === desk.color}
                onClick={() => change({ color: c.value })}
              />
            ))}
          </div>
          <Menu.Divider />
          <Menu.Item
            leftSection={<IconEye size={16} />}
            rightSection={desk.read_only ? '✓' : null}
            onClick={() => change({ read_only: !desk.read_only })}
          >
            {t('cluster.readOnly')}
          </Menu.Item>
          <Menu.Item
            color="red"
            leftSection={<IconTrash size={16} />}
            onClick={() => setRemoving(true)}
          >
            {t('cluster.remove.title')}
          </Menu.Item>
        </Menu.Dropdown>
      </Menu>
      {removing && <RemoveCluster desk={desk} onClose={() => setRemoving(false)} />}
    </>
  );
}
