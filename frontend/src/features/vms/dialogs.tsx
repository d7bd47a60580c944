import { Alert, Checkbox } from '@mantine/core';
import { IconAlertTriangle } from '@tabler/icons-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import type { PowerAction, VM } from '../../api/types';
import { ActionDialog } from '../../parts/ActionDialog';
import { command } from '../../parts/command';
import { said } from '../../parts/useRun';
import { power, remove } from './actions';
import { inTurn } from './inTurn';
import classes from './vms.module.css';

interface PowerProps {
  vms: VM[];
  action: PowerAction;
  onClose: () => void;
  onDone?: () => void;
}

/** Asks before machines change state, and names each. */
export function PowerDialog({ vms, action, onClose, onDone }: PowerProps) {
  const { t } = useTranslation();
  const connection = useConnection();
  const name = vms[0]?.name ?? '';
  return (
    <ActionDialog
      title={t(`vm.ask.${action}`, { count: vms.length, name })}
      onClose={onClose}
      danger={action === 'stop' || action === 'reset'}
      confirm={t(`vm.action.${action}`)}
      command={lines(vms, (vm) => command('vm', action, vm.name))}
      onConfirm={async () => {
        await inTurn(vms, (vm) => power(connection, vm, action));
        onDone?.();
      }}
    >
      <Names vms={vms} />
      <p className={classes.text}>{t(`vm.text.${action}`)}</p>
    </ActionDialog>
  );
}

interface DeleteProps {
  vms: VM[];
  onClose: () => void;
  onDone?: () => void;
}

/** Deletes machines once the name, or for several their number, is typed. */
export function DeleteDialog({ vms, onClose, onDone }: DeleteProps) {
  const { t } = useTranslation();
  const connection = useConnection();
  const [keep, setKeep] = useState(false);
  const name = vms[0]?.name ?? '';
  const running = vms.filter((vm) => vm.status.state !== 'stopped' && vm.status.state !== 'failed');
  return (
    <ActionDialog
      title={t('vm.ask.delete', { count: vms.length, name })}
      onClose={onClose}
      danger
      typed={vms.length === 1 ? name : String(vms.length)}
      ready={running.length === 0}
      confirm={t('vm.action.delete')}
      command={lines(vms, (vm) => command('vm', 'delete', vm.name, keep && '--keep-disks'))}
      onConfirm={async () => {
        await inTurn(vms, (vm) => remove(connection, vm, keep));
        said(t('vm.done.delete', { count: vms.length, name }));
        onDone?.();
      }}
    >
      <Names vms={vms} />
      {running.length > 0 && (
        <Alert color="orange" variant="light" icon={<IconAlertTriangle size={18} />}>
          {t('vm.stopFirst', { names: running.map((vm) => vm.name).join(', ') })}
        </Alert>
      )}
      <Checkbox
        label={t('vm.keepDisks')}
        description={t('vm.keepDisksText')}
        checked={keep}
        onChange={(e) => setKeep(e.currentTarget.checked)}
      />
    </ActionDialog>
  );
}

function lines(vms: VM[], line: (vm: VM) => string): string {
  return vms.map(line).join(' && ');
}

function Names({ vms }: { vms: VM[] }) {
  if (vms.length < 2) return null;
  return (
    <ul className={classes.names}>
      {vms.map((vm) => (
        <li key={vm.id}>{vm.name}</li>
      ))}
    </ul>
  );
}
