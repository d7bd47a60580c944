import { Button } from '@mantine/core';
import { IconPlus } from '@tabler/icons-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useTopics } from '../../api/context';
import { useCluster, useDisks, useNodes, useRights } from '../../api/queries';
import type { Disk } from '../../api/types';
import { Await } from '../../parts/Await';
import { VerdictMark } from '../../parts/VerdictMark';
import { Page } from '../../ui/Page';
import { AddNode } from './AddNode';
import { Headline } from './Headline';
import { NodeColumn } from './NodeColumn';
import { PoolPanel } from './PoolPanel';
import { Recent, Running } from './Recent';
import classes from './overview.module.css';

/** The heads-up display: the whole cluster on one screen. */
export function Overview() {
  const { t } = useTranslation();
  const cluster = useCluster();
  const nodes = useNodes();
  const disks = useDisks();
  const rights = useRights();
  const [adding, setAdding] = useState(false);
  useTopics('cluster', 'nodes', 'disks', 'events');
  return (
    <Page
      title={cluster.data?.name ?? t('nav.overview')}
      mark={cluster.data && <VerdictMark cluster={cluster.data} />}
      actions={
        rights.administer && (
          <Button
            variant="default"
            leftSection={<IconPlus size={16} />}
            onClick={() => setAdding(true)}
          >
            {t('node.add.title')}
          </Button>
        )
      }
    >
      <Await query={cluster}>{(c) => <Headline cluster={c} nodes={nodes.data ?? []} />}</Await>
      <Await query={nodes}>
        {(list) => (
          <div className={classes.nodes}>
            {list.map((n) => (
              <NodeColumn key={n.id} node={n} disks={of(disks.data, n.id)} />
            ))}
          </div>
        )}
      </Await>
      <div className={classes.lower}>
        <PoolPanel />
        <Running />
        <Recent />
      </div>
      {adding && <AddNode onClose={() => setAdding(false)} nodes={nodes.data ?? []} />}
    </Page>
  );
}

function of(disks: Disk[] | undefined, node: string): Disk[] {
  const mine = (disks ?? []).filter((d) => d.node === node);
  return mine.sort((a, b) => a.path.localeCompare(b.path));
}
