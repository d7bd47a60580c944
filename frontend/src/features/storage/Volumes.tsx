import { Button, Table, TextInput } from '@mantine/core';
import { IconDatabase, IconPlus, IconSearch } from '@tabler/icons-react';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { useRights, useVMs, useVolumes } from '../../api/queries';
import type { Volume } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { Await } from '../../parts/Await';
import { VolumeMark } from '../../parts/states';
import { Empty } from '../../ui/Empty';
import { Panel } from '../../ui/Panel';
import { CreateVolume } from './CreateVolume';
import classes from './storage.module.css';

/** Every virtual disk that is no image. */
export function Volumes() {
  const { t } = useTranslation();
  const volumes = useVolumes();
  const rights = useRights();
  const [filter, setFilter] = useState('');
  const [creating, setCreating] = useState(false);
  const add = rights.administer && (
    <Button size="xs" leftSection={<IconPlus size={15} />} onClick={() => setCreating(true)}>
      {t('volume.create.title')}
    </Button>
  );
  const aside = (
    <>
      <TextInput
        size="xs"
        leftSection={<IconSearch size={14} />}
        placeholder={t('volume.search')}
        aria-label={t('volume.search')}
        value={filter}
        onChange={(e) => setFilter(e.currentTarget.value)}
      />
      {add}
    </>
  );
  return (
    <Panel title={t('storage.volumes')} aside={aside} flush>
      <Await query={volumes}>
        {(list) => {
          const disks = list.filter((v) => v.kind === 'disk');
          if (disks.length === 0) {
            return (
              <Empty
                icon={<IconDatabase size={26} />}
                title={t('volume.empty.title')}
                text={t('volume.empty.text')}
                action={add}
              />
            );
          }
          const wanted = filter.toLowerCase();
          return <List volumes={disks.filter((v) => v.name.toLowerCase().includes(wanted))} />;
        }}
      </Await>
      {creating && <CreateVolume onClose={() => setCreating(false)} />}
    </Panel>
  );
}

function List({ volumes }: { volumes: Volume[] }) {
  const { t } = useTranslation();
  const format = useFormat();
  const { id: cluster } = useConnection();
  const vms = useVMs();
  const owner = (v: Volume) => vms.data?.find((vm) => vm.id === v.attached_to);
  return (
    <Table.ScrollContainer minWidth={680}>
      <Table className={classes.table} highlightOnHover>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>{t('volume.name')}</Table.Th>
            <Table.Th>{t('vm.stateTitle')}</Table.Th>
            <Table.Th className={classes.number}>{t('disk.size')}</Table.Th>
            <Table.Th className={classes.number}>{t('volume.used')}</Table.Th>
            <Table.Th className={classes.number}>{t('volume.copies')}</Table.Th>
            <Table.Th className={classes.number}>{t('overview.sync')}</Table.Th>
            <Table.Th>{t('volume.vm')}</Table.Th>
            <Table.Th>{t('volume.holder')}</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {volumes.map((v) => {
            const vm = owner(v);
            return (
              <Table.Tr key={v.id}>
                <Table.Td>
                  <Link
                    to="/c/$cluster/storage/$volume"
                    params={{ cluster, volume: v.id }}
                    className={classes.link}
                    title={v.name}
                  >
                    {v.name}
                  </Link>
                </Table.Td>
                <Table.Td>
                  <VolumeMark state={v.state} />
                </Table.Td>
                <Table.Td className={classes.number}>{format.bytes(v.size_bytes)}</Table.Td>
                <Table.Td className={classes.number}>{format.bytes(v.used_bytes)}</Table.Td>
                <Table.Td className={classes.number}>{v.copies}</Table.Td>
                <Table.Td className={classes.number}>
                  {v.columns_out_of_sync} / {v.columns_total}
                </Table.Td>
                <Table.Td>
                  {vm ? (
                    <Link
                      to="/c/$cluster/vms/$vm"
                      params={{ cluster, vm: vm.id }}
                      className={classes.shortLink}
                      title={vm.name}
                    >
                      {vm.name}
                    </Link>
                  ) : (
                    '–'
                  )}
                </Table.Td>
                <Table.Td>{v.holder_name || '–'}</Table.Td>
              </Table.Tr>
            );
          })}
        </Table.Tbody>
      </Table>
      {volumes.length === 0 && <p className={classes.foot}>{t('volume.nothing')}</p>}
    </Table.ScrollContainer>
  );
}
