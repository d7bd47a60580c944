import { Button, CloseButton, Paper } from '@mantine/core';
import { IconPlayerPlay, IconPlayerStop, IconPower, IconTrash } from '@tabler/icons-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useRights } from '../../api/queries';
import type { PowerAction, VM } from '../../api/types';
import { possible } from './actions';
import { DeleteDialog, PowerDialog } from './dialogs';
import classes from './vms.module.css';

interface Props {
  vms: VM[];
  /** How many of them the search hides. */
  hidden: number;
  onClear: () => void;
}

/** What can be done to all selected machines. Each dialog names them all. */
export function BulkBar({ vms, hidden, onClear }: Props) {
  const { t } = useTranslation();
  const rights = useRights();
  const [asked, setAsked] = useState<PowerAction | 'delete' | undefined>();
  const able = (action: PowerAction) =>
    vms.filter((vm) => possible(vm.status.state).includes(action));
  const close = () => setAsked(undefined);
  const done = () => {
    onClear();
  };
  const buttons = [
    { action: 'start', icon: <IconPlayerPlay size={16} /> },
    { action: 'shutdown', icon: <IconPower size={16} /> },
    { action: 'stop', icon: <IconPlayerStop size={16} /> },
  ] as const;
  return (
    <Paper className={classes.bulk} shadow="lg" withBorder role="toolbar" aria-label={t('vm.bulk')}>
      <CloseButton onClick={onClear} aria-label={t('vm.clear')} />
      <strong>
        {t('vm.selected', { count: vms.length })}
        {hidden > 0 && ` ${t('vm.hidden', { count: hidden })}`}
      </strong>
      {rights.operate &&
        buttons.map(({ action, icon }) => (
          <Button
            key={action}
            variant="default"
            size="xs"
            leftSection={icon}
            disabled={able(action).length === 0}
            onClick={() => setAsked(action)}
          >
            {t(`vm.action.${action}`)}
          </Button>
        ))}
      {rights.administer && (
        <Button
          color="red"
          variant="light"
          size="xs"
          leftSection={<IconTrash size={16} />}
          onClick={() => setAsked('delete')}
        >
          {t('vm.action.delete')}
        </Button>
      )}
      {asked === 'delete' && <DeleteDialog vms={vms} onClose={close} onDone={done} />}
      {asked !== undefined && asked !== 'delete' && (
        <PowerDialog vms={able(asked)} action={asked} onClose={close} onDone={done} />
      )}
    </Paper>
  );
}
