import { Select } from '@mantine/core';
import { Link } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import type { Firmware, VM } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { VolumeMark } from '../../parts/states';
import classes from './vms.module.css';

const firmwares: readonly Firmware[] = ['bios', 'uefi', 'uefi-secure'];

interface Props {
  value: Firmware;
  onChange: (f: Firmware) => void;
  disabled?: boolean;
  /** What the machine has now: another one forgets what that remembers. */
  was?: Firmware;
}

/** What starts a machine. */
export function FirmwareSelect({ value, onChange, disabled, was }: Props) {
  const { t } = useTranslation();
  const forgets = was !== undefined && was !== 'bios' && was !== value;
  const text = value === 'uefi-secure' ? t('vm.firmware.secureText') : undefined;
  return (
    <Select
      label={t('vm.firmware.title')}
      description={forgets ? t('vm.firmware.forgets') : text}
      name="firmware"
      value={value}
      onChange={(f) => onChange(f ?? 'bios')}
      data={firmwares.map((f) => ({ value: f, label: t(`vm.firmware.${f}`) }))}
      allowDeselect={false}
      disabled={disabled ?? false}
    />
  );
}

/** The volume with what a machine's firmware remembers; it is none of its disks. */
export function NVRAM({ vm }: { vm: VM }) {
  const { t } = useTranslation();
  const format = useFormat();
  const { id: cluster } = useConnection();
  const { nvram } = vm;
  if (!nvram) return null;
  return (
    <div className={classes.disk} title={t('vm.firmware.nvram')}>
      <code>NVRAM</code>
      <Link
        to="/c/$cluster/storage/$volume"
        params={{ cluster, volume: nvram.volume }}
        title={nvram.name}
      >
        {nvram.name}
      </Link>
      <span>{format.bytes(nvram.size_bytes)}</span>
      <VolumeMark state={nvram.state} />
    </div>
  );
}
