import { NumberInput, SegmentedControl, TextInput } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { useNodes } from '../../api/queries';
import type { Network } from '../../api/types';
import { ActionDialog } from '../../parts/ActionDialog';
import { said } from '../../parts/useRun';
import { bridgeGood, changeOf, formOf, lineOf, nameGood, specOf } from './draft';
import type { Form } from './draft';
import classes from './networks.module.css';

/** Makes a network, or changes the one that is given. */
export function NetworkDialog({ network, onClose }: { network?: Network; onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const [form, setForm] = useState(() => formOf(network));
  const set = (part: Partial<Form>) => setForm((f) => ({ ...f, ...part }));
  const { spec, good } = specOf(form);
  const part = network && changeOf(network, spec);
  const what = network ? 'edit' : 'create';
  return (
    <ActionDialog
      title={network ? t('network.edit.title', { name: network.name }) : t('network.create.title')}
      onClose={onClose}
      confirm={t(`network.${what}.confirm`)}
      ready={good && (!part || Object.keys(part).length > 0)}
      command={lineOf(spec, network, part)}
      onConfirm={async () => {
        if (network) {
          await connection.call(`/networks/${network.id}`, { method: 'PATCH', body: part });
        } else {
          await connection.call('/networks', { method: 'POST', body: spec });
        }
        said(t(`network.${what}.done`, { name: form.name }));
      }}
    >
      <TextInput
        label={t('network.name')}
        name="name"
        value={form.name}
        onChange={(e) => set({ name: e.currentTarget.value })}
        error={form.name !== '' && !nameGood(form.name) ? t('name.letters') : undefined}
        description={t('name.rule')}
        spellCheck={false}
        autoComplete="off"
        data-autofocus
      />
      {!network && (
        <SegmentedControl
          fullWidth
          aria-label={t('network.kindTitle')}
          value={form.kind}
          onChange={(kind) => set({ kind })}
          data={[
            { value: 'bridge', label: t('network.kind.bridge') },
            { value: 'user', label: t('network.kind.user') },
          ]}
        />
      )}
      <p className={classes.text}>{t(`network.kindText.${form.kind}`)}</p>
      {form.kind === 'bridge' && <Bridges form={form} set={set} />}
    </ActionDialog>
  );
}

function Bridges({ form, set }: { form: Form; set: (part: Partial<Form>) => void }) {
  const { t } = useTranslation();
  const nodes = useNodes();
  const wrong = (name: string) =>
    name !== '' && !bridgeGood(name) ? t('network.bridgeRule') : undefined;
  return (
    <>
      <TextInput
        label={t('network.bridge')}
        name="bridge"
        value={form.bridge}
        onChange={(e) => set({ bridge: e.currentTarget.value })}
        error={wrong(form.bridge)}
        spellCheck={false}
        autoComplete="off"
      />
      <NumberInput
        label={t('network.vlan')}
        description={t('network.vlanText')}
        name="vlan"
        value={form.vlan}
        onChange={(n) => set({ vlan: Number(n) || 0 })}
        min={0}
        max={4094}
        allowDecimal={false}
      />
      {(nodes.data ?? []).map((n) => (
        <TextInput
          key={n.id}
          size="xs"
          label={t('network.bridgeOn', { node: n.name })}
          placeholder={form.bridge}
          value={form.own[n.name] ?? ''}
          onChange={(e) => set({ own: { ...form.own, [n.name]: e.currentTarget.value } })}
          error={wrong(form.own[n.name] ?? '')}
          spellCheck={false}
          autoComplete="off"
        />
      ))}
    </>
  );
}
