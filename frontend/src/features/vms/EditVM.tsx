import { NumberInput, Select, TextInput } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import type { Priority, VM, VMChange } from '../../api/types';
import { ActionDialog } from '../../parts/ActionDialog';
import { command, size } from '../../parts/command';
import { said } from '../../parts/useRun';
import { SizeInput } from '../../ui/SizeInput';
import { change } from './actions';
import { bounds, nameProblem } from './draft';
import classes from './vms.module.css';

export const priorities: readonly Priority[] = ['high', 'normal', 'low'];

/** Changes a machine; while it is on, only its priority. */
export function EditDialog({ vm, onClose }: { vm: VM; onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const [name, setName] = useState(vm.name);
  const [cpus, setCPUs] = useState(vm.cpus);
  const [memory, setMemory] = useState(vm.memory_bytes);
  const [priority, setPriority] = useState(vm.priority);
  const { state } = vm.status;
  const off = vm.power === 'off' && (state === 'stopped' || state === 'failed');
  const problem = nameProblem(name);
  const part = changes(vm, { name, cpus, memory_bytes: memory, priority });
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
    </ActionDialog>
  );
}

/** What differs from what the machine is. */
export function changes(vm: VM, wanted: Required<VMChange>): VMChange {
  const keys = Object.keys(wanted) as (keyof VMChange)[];
  return Object.fromEntries(keys.filter((k) => wanted[k] !== vm[k]).map((k) => [k, wanted[k]]));
}

function line(vm: VM, part: VMChange): string {
  const words = ['vm', 'edit', vm.name];
  if (part.name !== undefined) words.push('--name', part.name);
  if (part.cpus !== undefined) words.push('--cpus', String(part.cpus));
  if (part.memory_bytes !== undefined) words.push('--memory', size(part.memory_bytes));
  if (part.priority !== undefined) words.push('--priority', part.priority);
  return command(...words);
}
