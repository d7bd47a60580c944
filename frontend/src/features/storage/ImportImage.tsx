import { FileInput, Progress, Select, TextInput } from '@mantine/core';
import { IconFile } from '@tabler/icons-react';
import { useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import type { ImageFormat, Upload } from '../../api/types';
import { begin, interrupted, sendImage } from '../../api/uploads';
import type { Step } from '../../api/uploads';
import { useFormat } from '../../i18n/format';
import { ActionDialog } from '../../parts/ActionDialog';
import { command } from '../../parts/command';
import { said } from '../../parts/useRun';
import classes from './storage.module.css';

const formats: readonly { value: ImageFormat; label: string }[] = [
  { value: 'qcow2', label: 'qcow2' },
  { value: 'raw', label: 'raw, ISO' },
  { value: 'vmdk', label: 'VMDK' },
  { value: 'vhdx', label: 'VHDX' },
  { value: 'vhd', label: 'VHD' },
  { value: 'ova', label: 'OVA' },
];

/** The format that a name says, as drystone image upload reads it; null: none. */
export function formatOf(name: string): ImageFormat | null {
  const end = name.toLowerCase().split('.').at(-1);
  if (end === 'iso') return 'raw';
  return formats.find((f) => f.value === end)?.value ?? null;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const SUM = /^([0-9A-Fa-f]{64})?$/;

/** Sends an image file and makes a volume of it. One that was interrupted goes on. */
export function ImportImage({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const [file, setFile] = useState<File | null>(null);
  const [name, setName] = useState('');
  const [format, setFormat] = useState<ImageFormat | null>(null);
  const [sum, setSum] = useState('');
  const [before, setBefore] = useState<Upload>();
  const [step, setStep] = useState<Step>();
  const abort = useRef<AbortController>(undefined);
  const chosen = useRef<File>(null);
  // Closing the dialog interrupts; what was sent stays on the node for a day.
  useEffect(() => () => abort.current?.abort(), []);

  const choose = (f: File | null) => {
    chosen.current = f;
    setFile(f);
    setBefore(undefined);
    if (!f) return;
    setFormat(formatOf(f.name));
    if (name === '') setName(f.name.replace(/\.[^.]+$/, '').replace(/[^A-Za-z0-9._-]/g, '-'));
    interrupted(connection, f).then(
      (u) => {
        if (!u || chosen.current !== f) return;
        setBefore(u);
        setName(u.name);
        setFormat(u.format ?? null);
      },
      () => undefined, // it is asked again when it begins
    );
  };

  const run = async () => {
    if (!file) return;
    const controller = new AbortController();
    abort.current = controller;
    try {
      const upload =
        (await interrupted(connection, file)) ??
        (await begin(connection, file, name, format ?? undefined));
      await sendImage(connection, upload, file, sum, setStep, controller.signal);
      said(t('image.import.done', { name: upload.name }));
    } finally {
      setStep(undefined);
    }
  };

  return (
    <ActionDialog
      title={t('image.import.title')}
      onClose={onClose}
      confirm={before ? t('image.import.resume') : t('image.import.confirm')}
      ready={file !== null && NAME.test(name) && SUM.test(sum)}
      command={command(
        ...['image', 'upload', file?.name ?? 'FILE', '--name', name || 'NAME'],
        ...(format ? ['--format', format] : []),
        ...(sum ? ['--sha256', sum] : []),
      )}
      onConfirm={run}
    >
      <FileInput
        label={t('image.import.file')}
        placeholder={t('action.choose')}
        leftSection={<IconFile size={16} />}
        value={file}
        onChange={choose}
      />
      {before && !step && <Before upload={before} />}
      <TextInput
        label={t('volume.name')}
        value={name}
        onChange={(e) => setName(e.currentTarget.value)}
        description={t('name.rule')}
        spellCheck={false}
        disabled={before !== undefined}
      />
      <Select
        label={t('image.import.format')}
        description={t('image.import.formatText')}
        placeholder={t('image.import.found')}
        data={formats}
        value={format}
        onChange={setFormat}
        clearable
        disabled={before !== undefined}
      />
      <TextInput
        label={t('image.import.sum')}
        description={t('image.import.sumText')}
        value={sum}
        onChange={(e) => setSum(e.currentTarget.value.trim())}
        error={SUM.test(sum) ? undefined : t('image.import.sumWrong')}
        spellCheck={false}
      />
      {step && <Going step={step} />}
    </ActionDialog>
  );
}

/** How much of a file the node has already. */
function Before({ upload }: { upload: Upload }) {
  const { t } = useTranslation();
  const format = useFormat();
  return (
    <p className={classes.text} role="status">
      {t('image.import.before', {
        sent: format.bytes(upload.offset_bytes),
        size: format.bytes(upload.size_bytes),
      })}
    </p>
  );
}

function Going({ step }: { step: Step }) {
  const { t } = useTranslation();
  const format = useFormat();
  const share = step.total > 0 ? step.done / step.total : 0;
  return (
    <div role="status">
      <p className={classes.text}>
        {t(`image.import.${step.phase}`)} {format.percent(share)}
      </p>
      <Progress value={share * 100} animated aria-label={t(`image.import.${step.phase}`)} />
    </div>
  );
}
