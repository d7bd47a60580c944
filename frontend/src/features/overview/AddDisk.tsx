import { Switch, TextInput } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import type { Node } from '../../api/types';
import { ActionDialog } from '../../parts/ActionDialog';
import { command, size } from '../../parts/command';
import { said } from '../../parts/useRun';
import { SizeInput } from '../../ui/SizeInput';

const GiB = 2 ** 30;

/** Makes a file or device of a node part of the pool. */
export function AddDisk({ node, onClose }: { node: Node; onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const [path, setPath] = useState('');
  const [create, setCreate] = useState(false);
  const [bytes, setBytes] = useState(64 * GiB);
  return (
    <ActionDialog
      title={t('disk.add.on', { node: node.name })}
      onClose={onClose}
      confirm={t('disk.add.confirm')}
      ready={path.startsWith('/')}
      command={command(
        ...['disk', 'add', '--node', node.name, path === '' ? 'PATH' : path],
        create && '--size',
        create && size(bytes),
      )}
      onConfirm={async () => {
        const body = create ? { path, size_bytes: bytes } : { path };
        await connection.call(`/nodes/${node.id}/disks`, { method: 'POST', body });
        said(t('disk.add.done', { path }));
      }}
    >
      <TextInput
        label={t('disk.path')}
        description={t('disk.add.path')}
        placeholder="/dev/disk/by-id/…"
        value={path}
        onChange={(e) => setPath(e.currentTarget.value)}
        spellCheck={false}
        data-autofocus
      />
      <Switch
        label={t('disk.add.create')}
        checked={create}
        onChange={(e) => setCreate(e.currentTarget.checked)}
      />
      {create && (
        <SizeInput label={t('disk.size')} value={bytes} onChange={setBytes} min={GiB} step={8} />
      )}
    </ActionDialog>
  );
}
