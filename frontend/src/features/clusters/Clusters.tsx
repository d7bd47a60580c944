import { Button } from '@mantine/core';
import { IconPlus, IconServer2 } from '@tabler/icons-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { ClusterProvider } from '../../api/context';
import { useDeskClusters } from '../../api/desk';
import { Await } from '../../parts/Await';
import { Empty } from '../../ui/Empty';
import { Page } from '../../ui/Page';
import { AddCluster } from './AddCluster';
import { ClusterCard } from './ClusterCard';
import classes from './clusters.module.css';

/** The desktop's home: every cluster beside the others, live. */
export function Clusters() {
  const { t } = useTranslation();
  const clusters = useDeskClusters();
  const [adding, setAdding] = useState(false);
  const add = (
    <Button leftSection={<IconPlus size={16} />} onClick={() => setAdding(true)}>
      {t('cluster.add.title')}
    </Button>
  );
  const some = (clusters.data?.length ?? 0) > 0;
  return (
    <Page title={t('nav.clusters')} actions={some && add}>
      <Await query={clusters}>
        {(list) =>
          list.length === 0 ? (
            <Empty
              icon={<IconServer2 size={26} />}
              title={t('cluster.empty.title')}
              text={t('cluster.empty.text')}
              action={add}
            />
          ) : (
            <div className={classes.cards}>
              {list.map((c) => (
                <ClusterProvider key={c.id} id={c.id}>
                  <ClusterCard desk={c} />
                </ClusterProvider>
              ))}
            </div>
          )
        }
      </Await>
      {adding && <AddCluster onClose={() => setAdding(false)} />}
    </Page>
  );
}
