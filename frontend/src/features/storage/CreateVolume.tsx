import { SegmentedControl, TextInput } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { ActionDialog } from '../../parts/ActionDialog';
import { command, size } from '../../parts/command';
import { said } from '../../parts/useRun';
import { SizeInput } from '../../ui/SizeInput';
import classes from './storage.module.css';

const GiB = 2 ** 30;
const LEAST = 2 ** 20;

/** Makes an empty volume. */
export function CreateVolume({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const [name, setName] = useState('');
  const [bytes, setBytes] = useState(20 * GiB);
  const [copies, setCopies] = useState(2);
  const good = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name);
  return (
    <ActionDialog
      title={t('volume.create.title')}
      onClose={onClose}
      confirm={t('volume.create.confirm')}
      ready={good && bytes >= LEAST}
      command={command(
        ...['volume', 'create', name || 'NAME', size(bytes)],
        copies !== 2 && '--copies',
        copies !== 2 && String(copies),
      )}
      onConfirm={async () => {
        const body = { name, size_bytes: bytes, copies };
        await connection.call('/volumes', { method: 'POST', body });
        said(t('volume.create.done', { name }));
      }}
    >
      <TextInput
        label={t('volume.name')}
        name="name"
        value={name}
        onChange={(e) => setName(e.currentTarget.value)}
        error={name !== '' && !good ? t('name.letters') : undefined}
        description={t('name.rule')}
        spellCheck={false}
        autoComplete="off"
        data-autofocus
      />
      <SizeInput label={t('disk.size')} value={bytes} onChange={setBytes} min={LEAST} step={4} />
      <div>
        <span className={classes.label}>{t('volume.copies')}</span>
        <SegmentedControl
          fullWidth
          value={String(copies)}
          onChange={(v) => setCopies(Number(v))}
          data={[
            { value: '2', label: t('volume.copies2') },
            { value: '3', label: t('volume.copies3') },
          ]}
        />
      </div>
    </ActionDialog>
  );
}
