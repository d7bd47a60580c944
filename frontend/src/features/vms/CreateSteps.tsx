import { FileInput, NumberInput, Radio, Select, Textarea, TextInput } from '@mantine/core';
import { IconFile } from '@tabler/icons-react';
import { useTranslation } from 'react-i18next';
import { useImages, useNetworks } from '../../api/queries';
import { useFormat } from '../../i18n/format';
import { SizeInput } from '../../ui/SizeInput';
import { bounds, nameProblem } from './draft';
import type { Draft } from './draft';
import { FirmwareSelect } from './Firmware';
import classes from './vms.module.css';

interface Props {
  draft: Draft;
  change: (part: Partial<Draft>) => void;
}

export function SizeStep({ draft, change }: Props) {
  const { t } = useTranslation();
  const problem = nameProblem(draft.name);
  return (
    <div className={classes.step}>
      <TextInput
        label={t('vm.name')}
        name="name"
        value={draft.name}
        onChange={(e) => change({ name: e.currentTarget.value })}
        error={problem && problem !== 'empty' ? t(`name.${problem}`) : undefined}
        description={t('name.rule')}
        spellCheck={false}
        autoComplete="off"
        data-autofocus
      />
      <div className={classes.pair}>
        <NumberInput
          label={t('vm.cpus')}
          name="cpus"
          value={draft.cpus}
          onChange={(n) => change({ cpus: Number(n) || 1 })}
          {...bounds.cpus}
          allowDecimal={false}
        />
        <SizeInput
          label={t('metric.memory')}
          value={draft.memory}
          onChange={(memory) => change({ memory })}
          {...bounds.memory}
        />
      </div>
    </div>
  );
}

export function DiskStep({ draft, change }: Props) {
  const { t } = useTranslation();
  const format = useFormat();
  const images = useImages();
  const networks = useNetworks();
  const { disk } = draft;
  const options = (images.data ?? []).map((i) => ({
    value: i.id,
    label: `${i.name} (${format.bytes(i.size_bytes)})`,
  }));
  const choose = (kind: string) => {
    if (kind === 'new') change({ disk: { kind, bytes: 20 * 2 ** 30 } });
    if (kind === 'image') change({ disk: { kind, image: options[0]?.value ?? '' } });
    if (kind === 'none') change({ disk: { kind } });
  };
  return (
    <div className={classes.step}>
      <Radio.Group value={disk.kind} onChange={choose} label={t('vm.create.diskFrom')}>
        <div className={classes.step} style={{ minHeight: 0, paddingTop: 10, gap: 10 }}>
          <Radio value="new" label={t('vm.create.new')} />
          <Radio
            value="image"
            label={t('vm.create.image')}
            description={options.length === 0 ? t('vm.create.noImages') : undefined}
            disabled={options.length === 0}
          />
          <Radio value="none" label={t('vm.create.none')} />
        </div>
      </Radio.Group>
      {disk.kind === 'new' && (
        <SizeInput
          label={t('disk.size')}
          value={disk.bytes}
          onChange={(bytes) => change({ disk: { kind: 'new', bytes } })}
          {...bounds.disk}
          step={4}
        />
      )}
      {disk.kind === 'image' && (
        <Select
          label={t('vm.create.image')}
          data={options}
          value={disk.image}
          onChange={(image) => change({ disk: { kind: 'image', image: image ?? '' } })}
          allowDeselect={false}
          searchable
        />
      )}
      <Select
        label={t('nic.network')}
        name="network"
        value={draft.network}
        onChange={(network) => change({ network: network ?? '' })}
        data={[
          { value: '', label: t('nic.none') },
          ...(networks.data ?? []).map((n) => ({ value: n.name, label: n.name })),
        ]}
        allowDeselect={false}
      />
    </div>
  );
}

export function BootStep({ draft, change }: Props) {
  const { t } = useTranslation();
  const { boot } = draft;
  const set = (part: { kernel?: File; initrd?: File; append?: string }) => {
    if (boot.kind === 'kernel') change({ boot: { ...boot, ...part } });
  };
  const choose = (kind: string) =>
    change({ boot: kind === 'kernel' ? { kind, append: 'console=ttyS0' } : { kind: 'disk' } });
  return (
    <div className={classes.step}>
      <Radio.Group value={boot.kind} onChange={choose} label={t('vm.create.bootFrom')}>
        <div className={classes.step} style={{ minHeight: 0, paddingTop: 10, gap: 10 }}>
          <Radio
            value="disk"
            label={t('vm.bootDisk')}
            disabled={draft.disk.kind === 'none'}
            description={draft.disk.kind === 'new' ? t('vm.create.emptyDisk') : undefined}
          />
          <Radio value="kernel" label={t('vm.create.kernel')} />
        </div>
      </Radio.Group>
      <FirmwareSelect value={draft.firmware} onChange={(firmware) => change({ firmware })} />
      {boot.kind === 'kernel' && (
        <>
          <div className={classes.pair}>
            <FilePick
              name="kernel"
              label={t('vm.create.kernelFile')}
              value={boot.kernel}
              onChange={(kernel) => set({ kernel })}
            />
            <FilePick
              name="initrd"
              label={t('vm.create.initrdFile')}
              value={boot.initrd}
              onChange={(initrd) => set({ initrd })}
            />
          </div>
          <Textarea
            label={t('vm.append')}
            value={boot.append}
            onChange={(e) => set({ append: e.currentTarget.value.replaceAll('\n', ' ') })}
            maxLength={2000}
            rows={2}
            spellCheck={false}
          />
        </>
      )}
    </div>
  );
}

interface FileProps {
  name: string;
  label: string;
  value: File | undefined;
  onChange: (file: File) => void;
}

function FilePick({ name, label, value, onChange }: FileProps) {
  const { t } = useTranslation();
  return (
    <FileInput
      name={name}
      label={label}
      placeholder={t('action.choose')}
      leftSection={<IconFile size={16} />}
      value={value ?? null}
      onChange={(f) => f && onChange(f)}
    />
  );
}
