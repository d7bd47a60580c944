import { ActionIcon, Menu } from '@mantine/core';
import {
  IconDots,
  IconPencil,
  IconPlayerPlay,
  IconPlayerStop,
  IconPower,
  IconRotate,
  IconTrash,
} from '@tabler/icons-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { useRights } from '../../api/queries';
import type { PowerAction, VM } from '../../api/types';
import { useRun } from '../../parts/useRun';
import { abrupt, possible, power } from './actions';
import { DeleteDialog, PowerDialog } from './dialogs';
import { EditDialog } from './EditVM';

const icons = {
  start: IconPlayerPlay,
  shutdown: IconPower,
  stop: IconPlayerStop,
  reset: IconRotate,
} as const;

interface Props {
  vm: VM;
  onOpen?: (open: boolean) => void;
  onDeleted?: () => void;
  /** Actions that have a button of their own beside the menu. */
  without?: readonly PowerAction[];
}

/** What can be done to one machine now. */
export function VMMenu({ vm, onOpen, onDeleted, without = [] }: Props) {
  const { t } = useTranslation();
  const connection = useConnection();
  const rights = useRights();
  const { busy, run } = useRun();
  const [asked, setAsked] = useState<PowerAction | 'edit' | 'delete' | undefined>();
  if (!rights.operate) return null;
  const choose = (action: PowerAction) => {
    if (abrupt(action)) setAsked(action);
    else run(() => power(connection, vm, action), t(`vm.done.${action}`, { name: vm.name }));
  };
  const close = () => setAsked(undefined);
  return (
    <>
      <Menu position="bottom-end" withinPortal {...(onOpen ? { onChange: onOpen } : {})}>
        <Menu.Target>
          <ActionIcon
            variant="subtle"
            color="gray"
            loading={busy}
            aria-label={t('vm.actions', { name: vm.name })}
          >
            <IconDots size={18} />
          </ActionIcon>
        </Menu.Target>
        <Menu.Dropdown>
          {possible(vm.status.state)
            .filter((a) => !without.includes(a))
            .map((action) => {
              const Icon = icons[action];
              return (
                <Menu.Item
                  key={action}
                  leftSection={<Icon size={16} />}
                  onClick={() => choose(action)}
                >
                  {t(`vm.action.${action}`)}
                </Menu.Item>
              );
            })}
          {rights.administer && (
            <Menu.Item leftSection={<IconPencil size={16} />} onClick={() => setAsked('edit')}>
              {t('vm.edit.action')}
            </Menu.Item>
          )}
          {rights.administer && (
            <Menu.Item
              color="red"
              leftSection={<IconTrash size={16} />}
              onClick={() => setAsked('delete')}
            >
              {t('vm.action.delete')}
            </Menu.Item>
          )}
        </Menu.Dropdown>
      </Menu>
      {asked === 'delete' && (
        <DeleteDialog vms={[vm]} onClose={close} {...(onDeleted ? { onDone: onDeleted } : {})} />
      )}
      {asked === 'edit' && <EditDialog vm={vm} onClose={close} />}
      {asked !== undefined && asked !== 'edit' && asked !== 'delete' && (
        <PowerDialog vms={[vm]} action={asked} onClose={close} />
      )}
    </>
  );
}
