import { ActionIcon } from '@mantine/core';
import { IconTrash } from '@tabler/icons-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { useRights, useUploads } from '../../api/queries';
import type { Upload } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { ActionDialog } from '../../parts/ActionDialog';
import { command } from '../../parts/command';
import classes from './storage.module.css';

/** Image files that were not sent to their end; nothing where there are none. */
export function Uploads() {
  const { t } = useTranslation();
  const format = useFormat();
  const rights = useRights();
  const uploads = useUploads(rights.administer);
  const [doomed, setDoomed] = useState<Upload>();
  const list = rights.administer ? (uploads.data ?? []) : [];
  if (list.length === 0) return null;
  return (
    <ul className={classes.uploads} aria-label={t('image.uploads.title')}>
      {list.map((u) => (
        <li key={u.id}>
          <span>
            {t('image.uploads.one', {
              name: u.name,
              file: u.file,
              sent: format.percent(u.offset_bytes / u.size_bytes),
              size: format.bytes(u.size_bytes),
            })}
          </span>
          <ActionIcon
            variant="subtle"
            color="red"
            aria-label={t('image.uploads.forget', { name: u.name })}
            onClick={() => setDoomed(u)}
          >
            <IconTrash size={16} />
          </ActionIcon>
        </li>
      ))}
      {doomed && <Forget upload={doomed} onClose={() => setDoomed(undefined)} />}
    </ul>
  );
}

function Forget({ upload, onClose }: { upload: Upload; onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  return (
    <ActionDialog
      title={t('image.uploads.forget', { name: upload.name })}
      onClose={onClose}
      danger
      confirm={t('action.delete')}
      command={command('image', 'forget', upload.id)}
      onConfirm={() => connection.call(`/uploads/${upload.id}`, { method: 'DELETE' })}
    >
      <p className={classes.text}>{t('image.uploads.forgetText')}</p>
    </ActionDialog>
  );
}
