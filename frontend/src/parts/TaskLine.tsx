import { ActionIcon, Progress, Tooltip } from '@mantine/core';
import { IconX } from '@tabler/icons-react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../api/context';
import { useRights } from '../api/queries';
import type { Task } from '../api/types';
import { useFormat } from '../i18n/format';
import classes from './lines.module.css';
import { TaskMark } from './states';
import { useRun } from './useRun';

/** One piece of long work, and how far it is. */
export function TaskLine({ task }: { task: Task }) {
  const format = useFormat();
  const share = task.total_bytes > 0 ? task.done_bytes / task.total_bytes : 0;
  const running = task.state === 'running';
  return (
    <div className={classes.task}>
      <div className={classes.taskHead}>
        <span className={classes.verb}>{task.kind}</span>
        <b title={task.object}>{task.object}</b>
        <span className={classes.who}>{format.ago(task.ended ?? task.started)}</span>
        <TaskMark state={task.state} />
        {running && <Cancel task={task} />}
      </div>
      {running && (
        <Progress
          value={task.total_bytes > 0 ? share * 100 : 100}
          size="sm"
          animated
          aria-label={task.object}
        />
      )}
      {running && task.total_bytes > 0 && (
        <span className={classes.who}>
          {format.bytes(task.done_bytes)} / {format.bytes(task.total_bytes)}
        </span>
      )}
      {task.error !== '' && <span className={classes.failed}>{task.error}</span>}
    </div>
  );
}

function Cancel({ task }: { task: Task }) {
  const { t } = useTranslation();
  const rights = useRights();
  const connection = useConnection();
  const { busy, run } = useRun();
  if (!rights.administer) return null;
  const cancel = () => connection.call(`/tasks/${task.id}`, { method: 'DELETE' });
  return (
    <Tooltip label={t('task.cancel')} withArrow>
      <ActionIcon
        size="sm"
        variant="subtle"
        color="gray"
        loading={busy}
        onClick={() => run(cancel)}
        aria-label={t('task.cancel')}
      >
        <IconX size={14} />
      </ActionIcon>
    </Tooltip>
  );
}
