import { ActionIcon, Button, Table } from '@mantine/core';
import { IconDisc, IconTrash, IconUpload } from '@tabler/icons-react';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { useImages, useRights } from '../../api/queries';
import type { Volume } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { Await } from '../../parts/Await';
import { VolumeMark } from '../../parts/states';
import { Empty } from '../../ui/Empty';
import { Panel } from '../../ui/Panel';
import { ImportImage } from './ImportImage';
import { Uploads } from './Uploads';
import { DeleteVolume } from './volumeDialogs';
import classes from './storage.module.css';

/** Disks that new ones are made from. */
export function Images() {
  const { t } = useTranslation();
  const images = useImages();
  const rights = useRights();
  const [importing, setImporting] = useState(false);
  const add = rights.administer && (
    <Button size="xs" leftSection={<IconUpload size={15} />} onClick={() => setImporting(true)}>
      {t('image.import.title')}
    </Button>
  );
  return (
    <Panel title={t('storage.images')} aside={add} flush>
      <Uploads />
      <Await query={images}>
        {(list) =>
          list.length === 0 ? (
            <Empty
              icon={<IconDisc size={26} />}
              title={t('image.empty.title')}
              text={t('image.empty.text')}
              action={add}
            />
          ) : (
            <List images={list} deletable={rights.administer} />
          )
        }
      </Await>
      {importing && <ImportImage onClose={() => setImporting(false)} />}
    </Panel>
  );
}

function List({ images, deletable }: { images: Volume[]; deletable: boolean }) {
  const { t } = useTranslation();
  const format = useFormat();
  const { id: cluster } = useConnection();
  const [doomed, setDoomed] = useState<Volume>();
  return (
    <Table.ScrollContainer minWidth={560}>
      <Table className={classes.table} highlightOnHover>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>{t('volume.name')}</Table.Th>
            <Table.Th>{t('vm.stateTitle')}</Table.Th>
            <Table.Th className={classes.number}>{t('disk.size')}</Table.Th>
            <Table.Th className={classes.number}>{t('volume.used')}</Table.Th>
            <Table.Th>{t('vm.created')}</Table.Th>
            <Table.Th w={50} />
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {images.map((v) => (
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
              <Table.Td>{format.dateTime(v.created)}</Table.Td>
              <Table.Td>
                {deletable && (
                  <ActionIcon
                    variant="subtle"
                    color="red"
                    aria-label={t('volume.delete.title', { name: v.name })}
                    onClick={() => setDoomed(v)}
                  >
                    <IconTrash size={16} />
                  </ActionIcon>
                )}
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
      {doomed && <DeleteVolume volume={doomed} onClose={() => setDoomed(undefined)} />}
    </Table.ScrollContainer>
  );
}
