import { ActionIcon, Button, Select } from '@mantine/core';
import { IconDisc, IconPlayerEject, IconPlus } from '@tabler/icons-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { useImages, useRights } from '../../api/queries';
import type { CDROM, VM, VMChange } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { ActionDialog } from '../../parts/ActionDialog';
import { command } from '../../parts/command';
import { said, useRun } from '../../parts/useRun';
import { Panel } from '../../ui/Panel';
import { change } from './actions';
import classes from './vms.module.css';

type Open = { drive: number } | { add: true } | undefined;

/** The machine's drives with another image in one of them; '' is none. */
export function withImage(drives: CDROM[], drive: number, image: string): VMChange {
  return {
    cdroms: drives.map((d, i) => ({ bus: d.bus, image: i === drive ? image : d.name })),
  };
}

/** The CD-ROM drives of a machine; what is in them changes while it runs, too. */
export function Drives({ vm }: { vm: VM }) {
  const { t } = useTranslation();
  const format = useFormat();
  const connection = useConnection();
  const rights = useRights();
  const { busy, run } = useRun();
  const [open, setOpen] = useState<Open>();
  const off = vm.status.state === 'stopped' || vm.status.state === 'failed';
  const add = rights.administer && off && vm.cdroms.length < 4 && (
    <Button
      size="compact-xs"
      variant="subtle"
      leftSection={<IconPlus size={14} />}
      onClick={() => setOpen({ add: true })}
    >
      {t('drive.add')}
    </Button>
  );
  return (
    <Panel title={t('drive.title')} aside={add}>
      {vm.cdroms.length === 0 && <p className={classes.text}>{t('drive.none')}</p>}
      {vm.cdroms.map((d, i) => (
        <div key={i} className={classes.disk}>
          <code>cdrom{i + 1}</code>
          <span className={classes.grow}>{d.name || t('drive.empty')}</span>
          {d.name && <span>{format.bytes(d.size_bytes)}</span>}
          <span>{d.bus.toUpperCase()}</span>
          {rights.administer && (
            <ActionIcon
              variant="subtle"
              color="gray"
              size="sm"
              aria-label={t('drive.insert', { drive: i + 1 })}
              onClick={() => setOpen({ drive: i })}
            >
              <IconDisc size={15} />
            </ActionIcon>
          )}
          {rights.administer && (
            <ActionIcon
              variant="subtle"
              color="gray"
              size="sm"
              disabled={d.name === ''}
              loading={busy}
              aria-label={t('drive.eject', { drive: i + 1 })}
              onClick={() =>
                run(
                  () => change(connection, vm, withImage(vm.cdroms, i, '')),
                  t('vm.edit.done', { name: vm.name }),
                )
              }
            >
              <IconPlayerEject size={15} />
            </ActionIcon>
          )}
        </div>
      ))}
      {vm.cloud_init && <p className={classes.text}>{t('drive.cloudInit')}</p>}
      {open && <DiscDialog vm={vm} open={open} onClose={() => setOpen(undefined)} />}
    </Panel>
  );
}

/** Puts an image into a drive, or adds a drive with one in it. */
function DiscDialog({
  vm,
  open,
  onClose,
}: {
  vm: VM;
  open: NonNullable<Open>;
  onClose: () => void;
}) {
  const { t } = useTranslation();
  const connection = useConnection();
  const images = useImages();
  const names = (images.data ?? []).map((i) => i.name);
  const [chosen, setChosen] = useState<string>();
  const [bus, setBus] = useState<CDROM['bus']>('sata');
  const adding = 'add' in open;
  const drive = adding ? vm.cdroms.length : open.drive;
  const image = chosen ?? names[0] ?? '';
  const words = [image, `drive=${drive + 1}`, ...(adding ? [`bus=${bus}`] : [])];
  const part = adding
    ? { cdroms: [...(withImage(vm.cdroms, -1, '').cdroms ?? []), { bus, image }] }
    : withImage(vm.cdroms, drive, image);
  return (
    <ActionDialog
      title={adding ? t('drive.add') : t('drive.insert', { drive: drive + 1 })}
      onClose={onClose}
      confirm={adding ? t('drive.addConfirm') : t('drive.confirm')}
      ready={image !== ''}
      command={command('vm', 'edit', vm.name, '--cdrom', words.join(','))}
      onConfirm={async () => {
        await change(connection, vm, part);
        said(t('vm.edit.done', { name: vm.name }));
      }}
    >
      {images.data?.length === 0 && <p className={classes.text}>{t('drive.noImages')}</p>}
      <Select
        label={t('drive.image')}
        name="image"
        value={image === '' ? null : image}
        onChange={(n) => setChosen(n ?? undefined)}
        data={names}
        allowDeselect={false}
        searchable
      />
      {adding && (
        <Select
          label={t('drive.bus')}
          description={t('drive.busText')}
          name="bus"
          value={bus}
          onChange={(b) => setBus(b ?? 'sata')}
          data={[
            { value: 'sata' as const, label: 'SATA' },
            { value: 'scsi' as const, label: 'SCSI (virtio)' },
          ]}
          allowDeselect={false}
        />
      )}
    </ActionDialog>
  );
}
