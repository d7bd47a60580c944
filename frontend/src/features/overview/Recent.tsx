import { IconChecklist, IconHistory } from '@tabler/icons-react';
import { Link } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { useAudit, useTasks } from '../../api/queries';
import { Await } from '../../parts/Await';
import { AuditLine } from '../../parts/AuditLine';
import { TaskLine } from '../../parts/TaskLine';
import { Empty } from '../../ui/Empty';
import { Panel } from '../../ui/Panel';
import classes from './overview.module.css';

/** What the cluster does by itself would drown what people did. */
const LOOK_BACK = 200;
const NEWEST = 8;

/** What the cluster is working on. */
export function Running() {
  const { t } = useTranslation();
  const tasks = useTasks();
  return (
    <Panel title={t('overview.tasks')} aside={<More />}>
      <Await query={tasks}>
        {(list) => {
          const running = list.filter((x) => x.state === 'running');
          const shown = running.length > 0 ? running : list.slice(0, 3);
          if (shown.length === 0) {
            return <Empty icon={<IconChecklist size={24} />} title={t('overview.noTasks')} />;
          }
          return shown.map((x) => <TaskLine key={x.id} task={x} />);
        }}
      </Await>
    </Panel>
  );
}

/** Who did what, newest first. */
export function Recent() {
  const { t } = useTranslation();
  const audit = useAudit(LOOK_BACK);
  return (
    <Panel title={t('overview.events')} aside={<More />}>
      <Await query={audit}>
        {(all) => {
          const rows = all.filter((r) => r.actor.user !== 'system').slice(0, NEWEST);
          if (rows.length === 0) {
            return <Empty icon={<IconHistory size={24} />} title={t('overview.noEvents')} />;
          }
          return rows.map((r) => <AuditLine key={r.index} row={r} />);
        }}
      </Await>
    </Panel>
  );
}

function More() {
  const { t } = useTranslation();
  const { id } = useConnection();
  return (
    <Link to="/c/$cluster/activity" params={{ cluster: id }} className={classes.more}>
      {t('overview.all')}
    </Link>
  );
}
