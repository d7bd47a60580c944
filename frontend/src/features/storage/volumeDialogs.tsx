import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import type { Volume } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { ActionDialog } from '../../parts/ActionDialog';
import { command, size } from '../../parts/command';
import { said } from '../../parts/useRun';
import { SizeInput } from '../../ui/SizeInput';
import classes from './storage.module.css';

interface Props {
  volume: Volume;
  onClose: () => void;
}

/** Makes a volume larger. It cannot become smaller: data would be cut off. */
export function ResizeVolume({ volume, onClose }: Props) {
  const { t } = useTranslation();
  const format = useFormat();
  const connection = useConnection();
  const [bytes, setBytes] = useState(volume.size_bytes);
  return (
    <ActionDialog
      title={t('volume.resize.of', { name: volume.name })}
      onClose={onClose}
      confirm={t('volume.resize.confirm')}
      ready={bytes > volume.size_bytes}
      command={command('volume', 'resize', volume.name, size(bytes))}
      onConfirm={async () => {
        const body = { size_bytes: bytes };
        await connection.call(`/volumes/${volume.id}`, { method: 'PATCH', body });
        said(t('volume.resize.done', { name: volume.name, size: format.bytes(bytes) }));
      }}
    >
      <SizeInput
        label={t('disk.size')}
        description={t('volume.resize.now', { size: format.bytes(volume.size_bytes) })}
        value={bytes}
        onChange={setBytes}
        min={volume.size_bytes}
        step={4}
      />
    </ActionDialog>
  );
}

/** Deletes a volume once its name is typed. */
export function DeleteVolume({ volume, onClose, onDone }: Props & { onDone?: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  return (
    <ActionDialog
      title={t('volume.delete.title', { name: volume.name })}
      onClose={onClose}
      danger
      typed={volume.name}
      confirm={t('action.delete')}
      command={command('volume', 'delete', volume.name)}
      onConfirm={async () => {
        await connection.call(`/volumes/${volume.id}`, { method: 'DELETE' });
        said(t('volume.delete.done', { name: volume.name }));
        onDone?.();
      }}
    >
      <p className={classes.text}>{t('volume.delete.text')}</p>
    </ActionDialog>
  );
}
