import { ActionIcon, Button, Checkbox, SegmentedControl, Select } from '@mantine/core';
import { IconPlus, IconTrash } from '@tabler/icons-react';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { useRights, useVMs, useVolumes } from '../../api/queries';
import type { VM } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { ActionDialog } from '../../parts/ActionDialog';
import { command, size } from '../../parts/command';
import { VolumeMark } from '../../parts/states';
import { said } from '../../parts/useRun';
import { Panel } from '../../ui/Panel';
import { SizeInput } from '../../ui/SizeInput';
import { change } from './actions';
import { NVRAM } from './Firmware';
import classes from './vms.module.css';

type Disk = VM['disks'][number];

const MAX = 16;
const GiB = 2 ** 30;

/** The disks of a machine; they come and go while it runs, too. */
export function Disks({ vm }: { vm: VM }) {
  const { t } = useTranslation();
  const format = useFormat();
  const rights = useRights();
  const { id: cluster } = useConnection();
  const [adding, setAdding] = useState(false);
  const [removed, setRemoved] = useState<Disk>();
  const add = rights.administer && vm.disks.length < MAX && (
    <Button
      size="compact-xs"
      variant="subtle"
      leftSection={<IconPlus size={14} />}
      onClick={() => setAdding(true)}
    >
      {t('vm.disk.add')}
    </Button>
  );
  return (
    <Panel title={t('vm.disks', { count: vm.disks.length })} aside={add}>
      {vm.disks.length === 0 && <p className={classes.text}>{t('vm.noDisks')}</p>}
      {vm.disks.map((d) => (
        <div key={d.volume} className={classes.disk}>
          <code>{d.device}</code>
          <Link
            to="/c/$cluster/storage/$volume"
            params={{ cluster, volume: d.volume }}
            title={d.name}
          >
            {d.name}
          </Link>
          <span>{format.bytes(d.size_bytes)}</span>
          {d.bus === 'sata' && <span>SATA</span>}
          <VolumeMark state={d.state} />
          {rights.administer && (
            <ActionIcon
              variant="subtle"
              color="gray"
              size="sm"
              aria-label={t('vm.disk.remove', { name: d.name })}
              onClick={() => setRemoved(d)}
            >
              <IconTrash size={15} />
            </ActionIcon>
          )}
        </div>
      ))}
      <NVRAM vm={vm} />
      {adding && <AddDisk vm={vm} onClose={() => setAdding(false)} />}
      {removed && <RemoveDisk vm={vm} disk={removed} onClose={() => setRemoved(undefined)} />}
    </Panel>
  );
}

interface Props {
  vm: VM;
  onClose: () => void;
}

function AddDisk({ vm, onClose }: Props) {
  const { t } = useTranslation();
  const connection = useConnection();
  const volumes = useVolumes().data ?? [];
  const machines = useVMs().data ?? [];
  const [from, setFrom] = useState<'new' | 'volume'>('new');
  const [bytes, setBytes] = useState(10 * GiB);
  const [volume, setVolume] = useState<string | null>(null);
  const taken = new Set(machines.flatMap((m) => m.disks.map((d) => d.volume)));
  const free = volumes.filter((v) => v.kind === 'disk' && !taken.has(v.id)).map((v) => v.name);
  const word = from === 'new' ? size(bytes) : (volume ?? '');
  return (
    <ActionDialog
      title={t('vm.disk.add')}
      onClose={onClose}
      confirm={t('vm.disk.addConfirm')}
      ready={word !== ''}
      command={command('vm', 'edit', vm.name, '--add-disk', word)}
      onConfirm={async () => {
        const disk = from === 'new' ? { size_bytes: bytes } : { volume: word };
        await change(connection, vm, { add_disks: [disk] });
        said(t('vm.edit.done', { name: vm.name }));
      }}
    >
      <SegmentedControl
        fullWidth
        value={from}
        onChange={(f) => setFrom(f === 'volume' ? 'volume' : 'new')}
        data={[
          { value: 'new', label: t('vm.disk.new') },
          { value: 'volume', label: t('vm.disk.volume') },
        ]}
      />
      {from === 'new' ? (
        <SizeInput
          label={t('disk.size')}
          value={bytes}
          onChange={setBytes}
          min={2 ** 20}
          max={64 * 2 ** 40}
        />
      ) : (
        <Select
          label={t('vm.disk.which')}
          description={free.length === 0 ? t('vm.disk.noneFree') : undefined}
          name="volume"
          value={volume}
          onChange={setVolume}
          data={free}
          searchable
        />
      )}
    </ActionDialog>
  );
}

function RemoveDisk({ vm, disk, onClose }: Props & { disk: Disk }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const [erase, setErase] = useState(false);
  const line = command('vm', 'edit', vm.name, '--remove-disk', disk.name);
  const more = erase ? ` && ${command('volume', 'delete', disk.name)}` : '';
  return (
    <ActionDialog
      title={t('vm.disk.remove', { name: disk.name })}
      onClose={onClose}
      danger
      {...(erase ? { typed: disk.name } : {})}
      confirm={t('vm.disk.removeConfirm')}
      command={line + more}
      onConfirm={async () => {
        await change(connection, vm, { remove_disks: [disk.volume] });
        if (erase) await connection.call(`/volumes/${disk.volume}`, { method: 'DELETE' });
        said(t('vm.edit.done', { name: vm.name }));
      }}
    >
      <p className={classes.text}>
        {vm.status.state === 'running' && t('vm.disk.running')} {!erase && t('vm.disk.stays')}
      </p>
      <Checkbox
        label={t('vm.disk.erase')}
        description={t('vm.disk.eraseText')}
        checked={erase}
        onChange={(e) => setErase(e.currentTarget.checked)}
      />
    </ActionDialog>
  );
}
