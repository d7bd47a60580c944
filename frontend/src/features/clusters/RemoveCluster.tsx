import { useQueryClient } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { useWorld } from '../../api/context';
import { deskCall } from '../../api/desk';
import type { DeskCluster } from '../../api/desk';
import { ActionDialog } from '../../parts/ActionDialog';
import classes from './clusters.module.css';

/** Forgets a cluster in this app; the cluster itself is not touched. */
export function RemoveCluster({ desk, onClose }: { desk: DeskCluster; onClose: () => void }) {
  const { t } = useTranslation();
  const { platform, connections } = useWorld();
  const queries = useQueryClient();
  return (
    <ActionDialog
      title={t('cluster.remove.ask', { name: desk.name })}
      onClose={onClose}
      danger
      confirm={t('cluster.remove.confirm')}
      onConfirm={async () => {
        await deskCall(platform, `/clusters/${desk.id}`, { method: 'DELETE' });
        connections.drop(desk.id);
        await queries.invalidateQueries({ queryKey: ['desk'] });
      }}
    >
      <p className={classes.text}>{t('cluster.remove.text')}</p>
    </ActionDialog>
  );
}
