import { Tabs } from '@mantine/core';
import { IconDatabase, IconDisc, IconServer2 } from '@tabler/icons-react';
import { useNavigate, useSearch } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import { useConnection, useTopics } from '../../api/context';
import { Page } from '../../ui/Page';
import { Images } from './Images';
import { PoolTab } from './PoolTab';
import { Volumes } from './Volumes';

/** One pool and what lies in it. */
export function Storage() {
  const { t } = useTranslation();
  const { id: cluster } = useConnection();
  const navigate = useNavigate();
  const { tab } = useSearch({ from: '/c/$cluster/storage' });
  useTopics('disks', 'events');
  const go = (to: string | null) =>
    void navigate({
      to: '/c/$cluster/storage',
      params: { cluster },
      search: to === 'volumes' || to === 'images' ? { tab: to } : {},
      replace: true,
    });
  return (
    <Page title={t('nav.storage')}>
      <Tabs value={tab ?? 'pool'} onChange={go} keepMounted={false}>
        <Tabs.List mb="md">
          <Tabs.Tab value="pool" leftSection={<IconServer2 size={16} />}>
            {t('storage.pool')}
          </Tabs.Tab>
          <Tabs.Tab value="volumes" leftSection={<IconDatabase size={16} />}>
            {t('storage.volumes')}
          </Tabs.Tab>
          <Tabs.Tab value="images" leftSection={<IconDisc size={16} />}>
            {t('storage.images')}
          </Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="pool">
          <PoolTab />
        </Tabs.Panel>
        <Tabs.Panel value="volumes">
          <Volumes />
        </Tabs.Panel>
        <Tabs.Panel value="images">
          <Images />
        </Tabs.Panel>
      </Tabs>
    </Page>
  );
}
