import { FileInput, Progress, Select, TextInput } from '@mantine/core';
import { IconFile } from '@tabler/icons-react';
import { useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { ApiError, codes } from '../../api/errors';
import type { Code } from '../../api/errors';
import type { ImageFormat, ImportEvent } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { ActionDialog } from '../../parts/ActionDialog';
import { command } from '../../parts/command';
import { said } from '../../parts/useRun';
import classes from './storage.module.css';

const formats: readonly { value: ImageFormat; label: string }[] = [
  { value: 'qcow2', label: 'qcow2' },
  { value: 'raw', label: 'raw' },
  { value: 'vmdk', label: 'VMDK' },
  { value: 'vhdx', label: 'VHDX' },
];

/** Guesses from the name only; the person sees it and can choose another. */
export function formatOf(name: string): ImageFormat {
  const end = name.toLowerCase().split('.').at(-1);
  if (end === 'vmdk') return 'vmdk';
  if (end === 'vhdx') return 'vhdx';
  if (end === 'raw' || end === 'img') return 'raw';
  return 'qcow2';
}

interface Step {
  phase: 'upload' | 'convert';
  done: number;
  total: number;
}

/** Uploads an image file and makes a volume of it, with progress. */
export function ImportImage({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const [file, setFile] = useState<File | null>(null);
  const [name, setName] = useState('');
  const [format, setFormat] = useState<ImageFormat>('qcow2');
  const [step, setStep] = useState<Step>();
  const abort = useRef<AbortController>(undefined);
  // Closing the dialog ends the import; the server leaves nothing behind.
  useEffect(() => () => abort.current?.abort(), []);

  const choose = (f: File | null) => {
    setFile(f);
    if (!f) return;
    setFormat(formatOf(f.name));
    if (name === '') setName(f.name.replace(/\.[^.]+$/, '').replace(/[^A-Za-z0-9._-]/g, '-'));
  };

  const run = async () => {
    if (!file) return;
    const controller = new AbortController();
    abort.current = controller;
    let last: ImportEvent = {};
    try {
      await connection.upload(
        '/images',
        { name, format },
        file,
        {
          sent: (done) => setStep({ phase: 'upload', done, total: file.size }),
          line: (value) => {
            const event = value as ImportEvent;
            last = event;
            if (event.phase === 'convert') {
              setStep({
                phase: 'convert',
                done: event.done_bytes ?? 0,
                total: event.total_bytes ?? 0,
              });
            }
          },
        },
        controller.signal,
      );
    } finally {
      setStep(undefined);
    }
    if (last.error) throw new ApiError(codeOf(last.error.code), last.error.detail);
    if (!last.volume) throw new ApiError('unreachable', 'the answer ended early');
    said(t('image.import.done', { name }));
  };

  return (
    <ActionDialog
      title={t('image.import.title')}
      onClose={onClose}
      confirm={t('image.import.confirm')}
      ready={file !== null && /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name)}
      command={command(
        ...['image', 'import', file?.name ?? 'FILE'],
        ...['--name', name || 'NAME', '--format', format],
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
      <TextInput
        label={t('volume.name')}
        value={name}
        onChange={(e) => setName(e.currentTarget.value)}
        description={t('name.rule')}
        spellCheck={false}
      />
      <Select
        label={t('image.import.format')}
        description={t('image.import.formatText')}
        data={formats}
        value={format}
        onChange={(v) => setFormat(v ?? 'qcow2')}
        allowDeselect={false}
      />
      {step && <Going step={step} />}
    </ActionDialog>
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

function codeOf(text: string): Code {
  return codes.find((c) => c === text) ?? 'internal';
}
