import { Switch } from '@mantine/core';
import { IconChecklist, IconHistory } from '@tabler/icons-react';
import { useState } from 'react';
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

const ROWS = 300;

/** Long work, and who did what. */
export function Activity() {
  const { t } = useTranslation();
  const tasks = useTasks();
  const audit = useAudit(ROWS);
  const [system, setSystem] = useState(false);
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
        <Panel
          title={t('activity.audit')}
          aside={
            <Switch
              size="xs"
              label={t('activity.system')}
              checked={system}
              onChange={(e) => setSystem(e.currentTarget.checked)}
            />
          }
        >
          <Await query={audit}>
            {(all) => {
              const rows = all.filter((r) => system || r.actor.user !== 'system');
              if (rows.length === 0) {
                return <Empty icon={<IconHistory size={24} />} title={t('overview.noEvents')} />;
              }
              return rows.map((r) => <AuditLine key={r.index} row={r} />);
            }}
          </Await>
        </Panel>
      </div>
    </Page>
  );
}
