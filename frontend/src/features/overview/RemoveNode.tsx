import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import type { Node } from '../../api/types';
import { ActionDialog } from '../../parts/ActionDialog';
import { command } from '../../parts/command';
import { said } from '../../parts/useRun';
import classes from './overview.module.css';

/** Takes a node out for ever, once its name is typed. */
export function RemoveNode({ node, onClose }: { node: Node; onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  return (
    <ActionDialog
      title={t('node.remove.title')}
      onClose={onClose}
      danger
      typed={node.name}
      confirm={t('node.remove.confirm')}
      command={command('node', 'remove', node.name)}
      onConfirm={async () => {
        await connection.call(`/nodes/${node.id}`, { method: 'DELETE' });
        said(t('node.remove.done', { name: node.name }));
      }}
    >
      <p className={classes.dim}>{t('node.remove.text', { name: node.name })}</p>
    </ActionDialog>
  );
}
