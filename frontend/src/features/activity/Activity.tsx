import { IconChecklist, IconHistory } from '@tabler/icons-react';
import { useTranslation } from 'react-i18next';
import { useTopics } from '../../api/context';
import { useAudit, useTasks } from '../../api/queries';
import { AuditLine } from '../../parts/AuditLine';
import { Await } from '../../parts/Await';
import { TaskLine } from '../../parts/TaskLine';
import { Empty } from '../../ui/Empty';
import { Page } from '../../ui/Page';
import { Panel } from '../../ui/Panel';
import classes from './activity.module.css';

const ROWS = 200;

/** Long work, and who did what. */
export function Activity() {
  const { t } = useTranslation();
  const tasks = useTasks();
  const audit = useAudit(ROWS);
  useTopics('events');
  return (
    <Page title={t('nav.activity')}>
      <div className={classes.two}>
        <Panel title={t('activity.tasks')}>
          <Await query={tasks}>
            {(list) =>
              list.length === 0 ? (
                <Empty icon={<IconChecklist size={24} />} title={t('overview.noTasks')} />
              ) : (
                list.map((x) => <TaskLine key={x.id} task={x} />)
              )
            }
          </Await>
        </Panel>
        <Panel title={t('activity.audit')}>
          <Await query={audit}>
            {(rows) =>
              rows.length === 0 ? (
                <Empty icon={<IconHistory size={24} />} title={t('overview.noEvents')} />
              ) : (
                rows.map((r) => <AuditLine key={r.index} row={r} />)
              )
            }
          </Await>
        </Panel>
      </div>
    </Page>
  );
}
