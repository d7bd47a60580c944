import { Checkbox, NumberInput, Select, TagsInput, TextInput } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { useNodes } from '../../api/queries';
import type { Priority, VM, VMChange } from '../../api/types';
import { ActionDialog } from '../../parts/ActionDialog';
import { command, size } from '../../parts/command';
import { said } from '../../parts/useRun';
import { SizeInput } from '../../ui/SizeInput';
import { change } from './actions';
import { bounds, nameProblem } from './draft';
import { FirmwareSelect } from './Firmware';
import { Labels } from './Labels';
import classes from './vms.module.css';

export const priorities: readonly Priority[] = ['high', 'normal', 'low'];

/** Changes a machine; while it is on, not its name, processors and memory. */
export function EditDialog({ vm, onClose }: { vm: VM; onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const [name, setName] = useState(vm.name);
  const [cpus, setCPUs] = useState(vm.cpus);
  const [memory, setMemory] = useState(vm.memory_bytes);
  const [priority, setPriority] = useState(vm.priority);
  const [firmware, setFirmware] = useState(vm.firmware);
  const [labels, setLabels] = useState({ tags: vm.tags, description: vm.description });
  const [wish, setWish] = useState(wishOf(vm));
  const [limit, setLimit] = useState(limitOf(vm));
  const { state } = vm.status;
  const off = vm.power === 'off' && (state === 'stopped' || state === 'failed');
  const problem = nameProblem(name);
  const part = changes(vm, {
    name,
    cpus,
    memory_bytes: memory,
    priority,
    firmware,
    ...wish,
    ...limit,
    ...labels,
  });
  return (
    <ActionDialog
      title={t('vm.edit.title', { name: vm.name })}
      onClose={onClose}
      confirm={t('vm.edit.confirm')}
      ready={problem === undefined && Object.keys(part).length > 0}
      command={line(vm, part)}
      onConfirm={async () => {
        await change(connection, vm, part);
        said(t('vm.edit.done', { name }));
      }}
    >
      {!off && <p className={classes.text}>{t('vm.edit.on')}</p>}
      <TextInput
        label={t('vm.name')}
        name="name"
        value={name}
        onChange={(e) => setName(e.currentTarget.value)}
        error={problem && problem !== 'empty' ? t(`name.${problem}`) : undefined}
        disabled={!off}
        spellCheck={false}
        autoComplete="off"
      />
      <div className={classes.pair}>
        <NumberInput
          label={t('vm.cpus')}
          name="cpus"
          value={cpus}
          onChange={(n) => setCPUs(Number(n) || 1)}
          {...bounds.cpus}
          allowDecimal={false}
          disabled={!off}
        />
        <SizeInput
          label={t('metric.memory')}
          value={memory}
          onChange={setMemory}
          {...bounds.memory}
          disabled={!off}
        />
      </div>
      <Select
        label={t('vm.priority.title')}
        description={t('vm.priority.text')}
        name="priority"
        value={priority}
        onChange={(p) => setPriority(p ?? 'normal')}
        data={priorities.map((p) => ({ value: p, label: t(`vm.priority.${p}`) }))}
        allowDeselect={false}
      />
      <FirmwareSelect value={firmware} onChange={setFirmware} disabled={!off} was={vm.firmware} />
      <Wishes wish={wish} onChange={setWish} />
      <Labels {...labels} change={(l) => setLabels((was) => ({ ...was, ...l }))} />
      <Limits limit={limit} onChange={setLimit} />
    </ActionDialog>
  );
}

/** Where a machine rather runs, and which others it stays away from. */
interface Wish {
  prefer: string;
  backup: string;
  strict: boolean;
  apart: string[];
}

function wishOf(vm: VM): Wish {
  const { prefer = '', backup = '', strict, apart } = vm;
  return { prefer, backup, strict, apart };
}

function Wishes({ wish, onChange }: { wish: Wish; onChange: (w: Wish) => void }) {
  const { t } = useTranslation();
  const nodes = useNodes().data ?? [];
  const among = (other: string) => [
    { value: '', label: t('vm.wish.any') },
    ...nodes.filter((n) => n.name !== other).map((n) => ({ value: n.name, label: n.name })),
  ];
  const { prefer, backup, strict, apart } = wish;
  const set = (part: Partial<Wish>) => {
    const w = { ...wish, ...part };
    onChange({ ...w, strict: w.strict && (w.prefer !== '' || w.backup !== '') });
  };
  return (
    <>
      <div className={classes.pair}>
        <Select
          label={t('vm.wish.prefer')}
          name="prefer"
          value={prefer}
          onChange={(n) => set({ prefer: n ?? '' })}
          data={among(backup)}
          allowDeselect={false}
        />
        <Select
          label={t('vm.wish.backup')}
          name="backup"
          value={backup}
          onChange={(n) => set({ backup: n ?? '' })}
          data={among(prefer)}
          allowDeselect={false}
        />
      </div>
      <Checkbox
        label={t('vm.wish.strict')}
        description={t('vm.wish.strictText')}
        name="strict"
        checked={strict}
        onChange={(e) => set({ strict: e.currentTarget.checked })}
        disabled={prefer === '' && backup === ''}
      />
      <TagsInput
        label={t('vm.wish.apart')}
        description={t('vm.wish.apartText')}
        name="apart"
        value={apart}
        onChange={(groups) => set({ apart: [...groups].sort() })}
        maxTags={8}
      />
    </>
  );
}

type Limit = Required<
  Pick<VMChange, 'limit_iops' | 'limit_bytes_per_second' | 'limit_burst_seconds'>
>;

function limitOf({ limits }: VM): Limit {
  return {
    limit_iops: limits.iops,
    limit_bytes_per_second: limits.bytes_per_second,
    limit_burst_seconds: limits.burst_seconds,
  };
}

const MiB = 2 ** 20;

/** What each disk may do at most. */
function Limits({ limit, onChange }: { limit: Limit; onChange: (l: Limit) => void }) {
  const { t } = useTranslation();
  const set = (part: Partial<Limit>) => onChange({ ...limit, ...part });
  return (
    <>
      <div className={classes.pair}>
        <NumberInput
          label={t('vm.limit.iops')}
          description={t('vm.limit.none')}
          name="limit-iops"
          value={limit.limit_iops}
          onChange={(n) => set({ limit_iops: Number(n) || 0 })}
          min={0}
          max={10_000_000}
          allowDecimal={false}
          suffix=" IOPS"
        />
        <NumberInput
          label={t('vm.limit.bytes')}
          description={t('vm.limit.none')}
          name="limit-mbps"
          value={limit.limit_bytes_per_second / MiB}
          onChange={(n) => set({ limit_bytes_per_second: (Number(n) || 0) * MiB })}
          min={0}
          max={MiB}
          allowDecimal={false}
          suffix=" MiB/s"
        />
      </div>
      <NumberInput
        label={t('vm.limit.burst')}
        description={t('vm.limit.text')}
        name="limit-burst"
        value={limit.limit_burst_seconds}
        onChange={(n) => set({ limit_burst_seconds: Number(n) || 0 })}
        min={0}
        max={3600}
        allowDecimal={false}
        suffix=" s"
      />
    </>
  );
}

/** What differs from what the machine is. */
/** All but its network cards, disks and drives. */
type Plain = Omit<
  VMChange,
  | 'add_nics'
  | 'set_nics'
  | 'remove_nics'
  | 'add_disks'
  | 'remove_disks'
  | 'cdroms'
  | 'boot_order'
  | 'cloud_init'
>;

export function changes(vm: VM, wanted: Required<Plain>): Plain {
  const is: Required<Plain> = { ...vm, ...wishOf(vm), ...limitOf(vm) };
  const keys = Object.keys(wanted) as (keyof Plain)[];
  const differs = keys.filter((k) => JSON.stringify(wanted[k]) !== JSON.stringify(is[k]));
  return Object.fromEntries(differs.map((k) => [k, wanted[k]]));
}

/** What is changed to one of a few words. */
function named(part: VMChange): string[] {
  return (['priority', 'firmware'] as const).flatMap((flag) => {
    const word = part[flag];
    return word === undefined ? [] : [`--${flag}`, word];
  });
}

function line(vm: VM, part: VMChange): string {
  const words = ['vm', 'edit', vm.name];
  if (part.name !== undefined) words.push('--name', part.name);
  if (part.cpus !== undefined) words.push('--cpus', String(part.cpus));
  if (part.memory_bytes !== undefined) words.push('--memory', size(part.memory_bytes));
  words.push(...named(part));
  if (part.prefer !== undefined) words.push('--prefer', part.prefer);
  if (part.backup !== undefined) words.push('--backup', part.backup);
  if (part.strict !== undefined) words.push(part.strict ? '--strict' : '--strict=false');
  if (part.apart) words.push('--apart', part.apart.join(','));
  for (const tag of part.tags?.length === 0 ? [''] : (part.tags ?? [])) words.push('--tag', tag);
  if (part.description !== undefined) words.push('--description', part.description);
  if (part.limit_iops !== undefined) words.push('--iops', String(part.limit_iops));
  if (part.limit_bytes_per_second !== undefined)
    words.push('--mbps', String(part.limit_bytes_per_second / MiB));
  if (part.limit_burst_seconds !== undefined)
    words.push('--burst-seconds', String(part.limit_burst_seconds));
  return command(...words);
}
