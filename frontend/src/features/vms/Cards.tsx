import { ActionIcon, Button, Checkbox, Select, TextInput } from '@mantine/core';
import { IconPencil, IconPlus, IconTrash } from '@tabler/icons-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { useNetworks, useRights } from '../../api/queries';
import type { NIC, VM, VMChange } from '../../api/types';
import { ActionDialog } from '../../parts/ActionDialog';
import { command } from '../../parts/command';
import { said } from '../../parts/useRun';
import { Panel } from '../../ui/Panel';
import { change } from './actions';
import classes from './vms.module.css';

export const models = ['virtio', 'e1000', 'rtl8139'] as const;

type Open = { do: 'add' } | { do: 'edit' | 'remove'; nic: NIC } | undefined;

/** The network cards of a machine; they come and go while it runs, too. */
export function Cards({ vm }: { vm: VM }) {
  const { t } = useTranslation();
  const rights = useRights();
  const [open, setOpen] = useState<Open>();
  const close = () => setOpen(undefined);
  const add = rights.administer && vm.nics.length < 8 && (
    <Button
      size="compact-xs"
      variant="subtle"
      leftSection={<IconPlus size={14} />}
      onClick={() => setOpen({ do: 'add' })}
    >
      {t('nic.add')}
    </Button>
  );
  return (
    <Panel title={t('nic.count', { count: vm.nics.length })} aside={add}>
      {vm.nics.length === 0 && <p className={classes.text}>{t('nic.none')}</p>}
      {vm.nics.map((nic) => (
        <div key={nic.mac} className={classes.disk}>
          <code>{nic.mac}</code>
          <span className={classes.grow}>
            {nic.network_name}
            {!nic.connected && ` (${t('nic.disconnected')})`}
          </span>
          <span>{nic.model}</span>
          {rights.administer && (
            <>
              <ActionIcon
                variant="subtle"
                color="gray"
                size="sm"
                aria-label={t('nic.edit.title', { mac: nic.mac })}
                onClick={() => setOpen({ do: 'edit', nic })}
              >
                <IconPencil size={15} />
              </ActionIcon>
              <ActionIcon
                variant="subtle"
                color="gray"
                size="sm"
                aria-label={t('nic.remove.title', { mac: nic.mac })}
                onClick={() => setOpen({ do: 'remove', nic })}
              >
                <IconTrash size={15} />
              </ActionIcon>
            </>
          )}
        </div>
      ))}
      {open?.do === 'add' && <CardDialog vm={vm} onClose={close} />}
      {open?.do === 'edit' && <CardDialog vm={vm} nic={open.nic} onClose={close} />}
      {open?.do === 'remove' && <RemoveCard vm={vm} nic={open.nic} onClose={close} />}
    </Panel>
  );
}

/** What was chosen for a card. */
export interface Chosen {
  network: string;
  model: NIC['model'];
  mac: string;
  connected: boolean;
}

/** The change that makes a card what was chosen, and the same on the command line. */
export function cardChange(vm: string, c: Chosen, nic?: NIC): { part?: VMChange; line: string } {
  const mac = c.mac.trim().toLowerCase();
  if (!nic) {
    const words = [`net=${c.network}`, `model=${c.model}`];
    if (mac !== '') words.push(`mac=${mac}`);
    if (!c.connected) words.push('disconnected');
    const spec = {
      network: c.network,
      model: c.model,
      ...(mac === '' ? {} : { mac }),
      ...(c.connected ? {} : { disconnected: true }),
    };
    return {
      part: { add_nics: [spec] },
      line: command('vm', 'edit', vm, '--add-nic', words.join(',')),
    };
  }
  const words = [`mac=${nic.mac}`];
  const set: NonNullable<VMChange['set_nics']>[number] = { mac: nic.mac };
  if (c.network !== nic.network_name) {
    set.network = c.network;
    words.push(`net=${c.network}`);
  }
  if (c.model !== nic.model) {
    set.model = c.model;
    words.push(`model=${c.model}`);
  }
  if (c.connected !== nic.connected) {
    set.connected = c.connected;
    words.push(c.connected ? 'connected' : 'disconnected');
  }
  const line = command('vm', 'edit', vm, '--set-nic', words.join(','));
  return words.length > 1 ? { part: { set_nics: [set] }, line } : { line };
}

function macGood(mac: string): boolean {
  return mac === '' || /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(mac.trim());
}

function CardDialog({ vm, nic, onClose }: { vm: VM; nic?: NIC; onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const networks = useNetworks();
  const names = (networks.data ?? []).map((n) => n.name);
  const [chosen, setChosen] = useState<string | undefined>(nic?.network_name);
  const [model, setModel] = useState<NIC['model']>(nic?.model ?? 'virtio');
  const [mac, setMAC] = useState('');
  const [connected, setConnected] = useState(nic?.connected ?? true);
  const network = chosen ?? names[0] ?? '';
  const good = macGood(mac);
  const { part, line } = cardChange(vm.name, { network, model, mac, connected }, nic);
  return (
    <ActionDialog
      title={nic ? t('nic.edit.title', { mac: nic.mac }) : t('nic.add')}
      onClose={onClose}
      confirm={nic ? t('vm.edit.confirm') : t('nic.addConfirm')}
      ready={network !== '' && good && part !== undefined}
      command={line}
      onConfirm={async () => {
        if (part) await change(connection, vm, part);
        said(t('vm.edit.done', { name: vm.name }));
      }}
    >
      {networks.data?.length === 0 && <p className={classes.text}>{t('nic.noNetworks')}</p>}
      <Select
        label={t('nic.network')}
        name="network"
        value={network === '' ? null : network}
        onChange={(n) => setChosen(n ?? undefined)}
        data={names}
        allowDeselect={false}
      />
      <Select
        label={t('nic.model')}
        description={t('nic.modelText')}
        name="model"
        value={model}
        onChange={(m) => setModel(m ?? 'virtio')}
        data={[...models]}
        allowDeselect={false}
      />
      {!nic && (
        <TextInput
          label={t('nic.mac')}
          description={t('nic.macText')}
          name="mac"
          value={mac}
          onChange={(e) => setMAC(e.currentTarget.value)}
          error={good ? undefined : t('nic.macRule')}
          placeholder="02:…"
          spellCheck={false}
          autoComplete="off"
        />
      )}
      <Checkbox
        label={t('nic.connected')}
        checked={connected}
        onChange={(e) => setConnected(e.currentTarget.checked)}
      />
    </ActionDialog>
  );
}

function RemoveCard({ vm, nic, onClose }: { vm: VM; nic: NIC; onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  return (
    <ActionDialog
      title={t('nic.remove.title', { mac: nic.mac })}
      onClose={onClose}
      danger
      confirm={t('nic.remove.confirm')}
      command={command('vm', 'edit', vm.name, '--remove-nic', nic.mac)}
      onConfirm={async () => {
        await change(connection, vm, { remove_nics: [nic.mac] });
        said(t('vm.edit.done', { name: vm.name }));
      }}
    >
      <p className={classes.text}>{t('nic.remove.text', { name: vm.name })}</p>
    </ActionDialog>
  );
}
