import { useTranslation } from 'react-i18next';
import { usePool, useVolumes } from '../../api/queries';
import { Await } from '../../parts/Await';
import { PoolBar } from '../../parts/PoolBar';
import { Repairs } from '../../parts/Repairs';
import { Panel } from '../../ui/Panel';

/** The pool: what is used, what is kept for a rebuild, what is being repaired. */
export function PoolPanel() {
  const { t } = useTranslation();
  const pool = usePool();
  const volumes = useVolumes();
  return (
    <Panel title={t('pool.title')}>
      <Await query={pool}>{(p) => <PoolBar pool={p} />}</Await>
      <Repairs volumes={volumes.data ?? []} />
    </Panel>
  );
}
