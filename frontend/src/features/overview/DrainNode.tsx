import { Alert } from '@mantine/core';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import type { Node } from '../../api/types';
import { ActionDialog } from '../../parts/ActionDialog';
import { command } from '../../parts/command';
import { said } from '../../parts/useRun';
import classes from './overview.module.css';

/** Moves all machines off a node, or lets them come back. */
export function DrainNode({ node, onClose }: { node: Node; onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const verb = node.maintenance ? 'undrain' : 'drain';
  const { name } = node;
  return (
    <ActionDialog
      title={t(`node.${verb}.title`)}
      onClose={onClose}
      confirm={t(`node.${verb}.confirm`)}
      command={command('node', verb, name)}
      onConfirm={async () => {
        const method = node.maintenance ? 'DELETE' : 'POST';
        await connection.call(`/nodes/${node.id}/drain`, { method });
        said(t(`node.${verb}.done`, { name }));
      }}
    >
      <p className={classes.dim}>{t(`node.${verb}.text`, { name })}</p>
      {verb === 'drain' && <p className={classes.dim}>{t('node.drain.storage')}</p>}
    </ActionDialog>
  );
}

/** How far a node is with being drained, and who stays; nothing if it runs machines as always. */
export function Drained({ node }: { node: Node }) {
  const { t } = useTranslation();
  const { maintenance, vms_returning: returning, vms_stuck: stuck = [] } = node;
  if (!maintenance && returning === 0) return null;
  const line = maintenance
    ? maintenance.vms_left > 0
      ? t('node.drain.left', { count: maintenance.vms_left })
      : t('node.drain.empty')
    : t('node.undrain.left', { count: returning });
  return (
    <Alert
      color={stuck.length > 0 ? 'orange' : 'tarn'}
      variant="light"
      p="xs"
      mt="xs"
      role="status"
      data-drain={maintenance ? 'drain' : 'undrain'}
    >
      <span>{line}</span>
      {stuck.length > 0 && (
        <ul className={classes.stuck}>
          {stuck.map((s) => (
            <li key={s.id}>
              <b>{s.name}</b> {s.reason}
            </li>
          ))}
        </ul>
      )}
    </Alert>
  );
}
